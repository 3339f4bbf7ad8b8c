"""The reference evaluator in Core ML's place, in the tests of MIL's operations that coremltools brings.

Apple runs these tests with Core ML, so what they expect is what Core ML computes. A test counts where it evaluates a
program in float32 for iOS 17. Its outputs are alike, within the test's own tolerance, or otherwise; or the evaluator
refuses the program, because it lacks an operation or because it is not sure what Core ML makes of it. ``--quick``
takes one test in forty.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks._result import Claim, parser, publish
from sekron_edge.artifacts import Array
from sekron_edge.errors import NotRunnableError
from sekron_edge.exporters.coreml.evaluator import Program

_TESTS = "converters/mil/mil/ops/tests"
_GROUPS = ("iOS14", "iOS15", "iOS16", "iOS17")  # tests are filed under the first system that has the operation
_OUTCOMES = ("alike", "otherwise", "refused")
_SHARE = 40
# coremltools' own switches: which of its tests exist.
_CHOSEN = {"PYMIL_TEST_TARGETS": "mlprogram", "INCLUDE_MIL_FP32_UNIT_TESTS": "1", "RUN_BACKWARD_COMPATIBILITY": "1"}


class _InItsPlace:
    """A plugin of pytest that lets the evaluator predict, and keeps what came of each test."""

    def __init__(self, *, quick: bool) -> None:
        self.outcomes: dict[str, str] = {}
        self._quick = quick

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if _is_meant(item) and (not self._quick or _is_chosen(item))]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[Any]:
        report = yield
        if call.when == "call" and (call.excinfo is None or not call.excinfo.errisinstance(pytest.skip.Exception)):
            if call.excinfo is not None and call.excinfo.errisinstance(NotRunnableError):
                self.outcomes[item.nodeid] = "refused"
            elif item.stash.get(_EVALUATED, False):
                self.outcomes[item.nodeid] = "alike" if call.excinfo is None else "otherwise"
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[Any]:
        _running.append(item)
        try:
            return (yield)
        finally:
            _running.pop()


_EVALUATED = pytest.StashKey[bool]()
_running: list[pytest.Item] = []


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the tests, count."""
    options = parser(__doc__ or "").parse_args(arguments)
    os.environ |= {
        "PYMIL_TEST_TARGETS": "mlprogram",
        "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
        "RUN_BACKWARD_COMPATIBILITY": "1",
    }
    folder = _stand_in()
    plugin = _InItsPlace(quick=options.quick)
    given = ["-q", "--no-header", "-p", "no:cacheprovider", "--noconftest", "-c", os.devnull, f"--rootdir={folder}"]
    pytest.main([*given, *(str(folder / group) for group in _GROUPS)], plugins=[plugin])
    counted = Counter(
        (Path(name.split("::")[0]).stem.removeprefix("test_"), found) for name, found in plugin.outcomes.items()
    )
    rows = [
        {"operations": kind, **{outcome: counted[kind, outcome] for outcome in _OUTCOMES}}
        for kind in sorted({kind for kind, _ in counted})
    ]
    otherwise = [name for name, found in plugin.outcomes.items() if found == "otherwise"]
    for name in otherwise:
        print(name)
    publish(rows, [Claim(name="tests computed otherwise", value=len(otherwise), relation="<=", limit=0)], options.json)


def _kind(name: str) -> str:
    return Path(name.split("::", maxsplit=1)[0]).stem.removeprefix("test_")


def _stand_in() -> Path:
    """Put the evaluator in the place of Core ML in coremltools' test tools; return the folder of the tests."""
    from coremltools.converters.mil import testing_utils

    testing_utils._IS_MACOS = True
    testing_utils.coremltoolsutils._macos_version = lambda: (99, 0)
    testing_utils.run_core_ml_predict = _predicted
    testing_utils.compare_shapes = lambda *_, **__: None
    found = find_spec("coremltools")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / _TESTS


def _predicted(model: Any, inputs: Mapping[str, Array], state: Any = None) -> dict[str, Array]:
    del state
    _running[-1].stash[_EVALUATED] = True
    with tempfile.TemporaryDirectory() as temporary:
        package = Path(temporary) / "model.mlpackage"
        model.save(str(package))
        program = Program(package)
    interface = program.interface
    # A program takes no scalar: it declares an axis of one.
    given = [np.atleast_1d(np.asarray(inputs[tensor.name])) for tensor in interface.inputs]
    return {tensor.name: value for tensor, value in zip(interface.outputs, program.run(given), strict=True)}


def _is_meant(item: pytest.Item) -> bool:
    """Whether a test is of float32 and of iOS 17."""
    values = list(_values(getattr(getattr(item, "callspec", None), "params", {}).values()))
    backends = [value for value in values if hasattr(value, "opset_version")]
    if any(value is np.float16 or (isinstance(value, str) and value == "fp16") for value in values):
        return False
    return all(backend.precision == "fp32" and backend.opset_version.name == "iOS17" for backend in backends)


def _values(given: Any) -> Iterator[Any]:
    for value in given:
        if isinstance(value, list | tuple):
            yield from _values(value)
        else:
            yield value


def _is_chosen(item: pytest.Item) -> bool:
    return zlib.crc32(item.nodeid.encode()) % _SHARE == 0


if __name__ == "__main__":
    main()
