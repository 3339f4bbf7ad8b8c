"""TensorFlow Lite Micro: its files, its memory, its C++."""

from ._exporter import TFLMExporter

__all__ = ["TFLMExporter"]
