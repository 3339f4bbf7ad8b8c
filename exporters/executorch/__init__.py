"""ExecuTorch: ``.pte`` files for every backend it lowers to, and running those for XNNPACK."""

from ._exporter import ExecuTorchExporter

__all__ = ["ExecuTorchExporter"]
