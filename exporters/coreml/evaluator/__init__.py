"""A reference evaluator of ML programs: any program as it lies on disk, one operation at a time, with torch."""

from ._program import Program, TensorType, read_interface

__all__ = ["Program", "TensorType", "read_interface"]
