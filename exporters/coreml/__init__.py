"""Core ML: ``.mlpackage`` files; Core ML runs them on a Mac, the evaluator elsewhere."""

from ._exporter import CoreMLExporter

__all__ = ["CoreMLExporter"]
