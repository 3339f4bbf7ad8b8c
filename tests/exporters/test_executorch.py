"""ExecuTorch's files keep the exporters' contract."""

from typing import ClassVar

from sekron_edge.testing import ExporterContract


class TestExecuTorch(ExporterContract):
    format = "executorch"
    tolerance: ClassVar = {"fp32": 1e-4, "int8": 0.1}
