"""Arm Ethos-U: Vela compiles the file for TensorFlow Lite Micro, and estimates."""

from ._exporter import EthosUExporter

__all__ = ["EthosUExporter"]
