"""LiteRT: ``.tflite`` files, fp32 and int8, and running them; the conversion that TensorFlow Lite Micro shares."""

from ._litert import LiteRTExporter

__all__ = ["LiteRTExporter"]
