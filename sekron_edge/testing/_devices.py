"""What every device must keep, as pytest tests."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from sekron_edge.artifacts import Array, Artifact, get_exporter, predict
from sekron_edge.errors import DeviceError, UnsupportedError, VerificationError
from sekron_edge.measurement import Conditions, Device, MeasurementStore, open_device

_QUICK = Conditions(runs=4, warmup=1, timeout_s=60.0)
_GRACE_S = 30.0  # for ending a run, and for what was killed to be gone
_POLL_S = 0.05


class DeviceContract:
    """Inherit, and give the fixtures ``device`` and ``artifact``.

    The artifact's runtime is on the device, and its inputs are floats. Give ``leftovers`` too where the test can see
    which files and processes are on the device.

    Attributes:
        too_short_s: A time in which the device cannot run an artifact ten million times.
        tolerance: Largest error of an output relative to the largest output.
    """

    too_short_s: float = 1.0
    tolerance: float = 1e-3

    @pytest.fixture
    def device(self) -> Device:
        """Return the device under test."""
        raise NotImplementedError("give a fixture `device`")

    @pytest.fixture
    def artifact(self) -> Artifact:
        """Return an artifact that runs on the device."""
        raise NotImplementedError("give a fixture `artifact`")

    @pytest.fixture
    def leftovers(self) -> Callable[[], Collection[str]]:
        """Return what lists the files and processes that are on the device now; nothing if nobody can look there."""
        return tuple

    def expected_outputs(self, artifact: Artifact, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Return what the artifact makes of inputs on this machine; override it where it does not run here."""
        return predict(get_exporter(artifact.format).load(artifact), artifact, inputs)

    @pytest.fixture(autouse=True)
    def nothing_is_left_here(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: Device, artifact: Artifact
    ) -> Iterator[None]:
        """Whatever a test does, no process and no temporary file stays here; what it measures goes to its own store."""
        del device, artifact  # made first: what reaching it, and exporting, need may stay
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setenv("SEKRON_EDGE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        before = _processes_here()
        yield
        _wait_until(lambda: _processes_here() <= before)
        assert not list(temporary.iterdir())

    @pytest.fixture
    def refused(self, leftovers: Callable[[], Collection[str]]) -> _Refused:
        """Return a context that takes one error, and nothing left on the device or in the store."""
        return _Refused(leftovers)

    def test_it_is_opened_by_its_name(self, device: Device) -> None:
        """`open_device` takes what `Device.name` says."""
        opened = open_device(device.name)
        assert type(opened) is type(device)
        assert opened.name == device.name

    def test_a_measurement_says_what_was_measured_and_is_kept(self, device: Device, artifact: Artifact) -> None:
        """Times are positive, the environment is named, operators are timed where the runtime can."""
        measured = device.measure(artifact, replace(_QUICK, operators=True))
        assert measured.device == device.name
        assert (measured.artifact_name, measured.artifact_sha256) == (artifact.path.name, artifact.sha256)
        assert (measured.format, measured.precision) == (artifact.format, artifact.precision)
        assert (measured.warmup, measured.threads) == (_QUICK.warmup, _QUICK.threads)
        assert measured.runs >= _QUICK.runs
        assert 0 < measured.min_ms <= measured.median_ms
        assert measured.runtime
        assert measured.runtime_version
        assert measured.environment.machine
        assert measured.environment.system
        assert all(operator.milliseconds >= 0 for operator in measured.operators)
        assert _kept() == ([] if measured.emulated else [measured])

    def test_what_is_emulated_is_not_kept(
        self, device: Device, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its times say nothing about a device."""
        monkeypatch.setattr(device, "emulated", True)
        assert device.measure(artifact, _QUICK).emulated
        assert _kept() == []

    def test_artifacts_are_measured_in_turn(self, device: Device, artifact: Artifact) -> None:
        """Each has runs of its own; what calibrations time is not kept as measurements."""
        pair = device.measure_together([artifact, artifact], _QUICK)
        assert _kept() == [one for one in pair if not one.emulated]
        computations = device.time_computations([artifact, artifact], _QUICK)
        for measured in (pair, computations):
            assert [one.artifact_sha256 for one in measured] == [artifact.sha256] * 2
            assert all(one.runs >= _QUICK.runs and one.min_ms > 0 for one in measured)
        assert _kept() == [one for one in pair if not one.emulated]

    def test_operators_are_timed_or_refused(self, device: Device, artifact: Artifact) -> None:
        """A calibration by operators needs all artifacts' operators, or one clear error."""
        try:
            (measured,) = device.time_operators([artifact], _QUICK)
        except UnsupportedError as error:
            assert device.name in str(error)  # noqa: PT017 - either is right
        else:
            assert measured.operators

    def test_outputs_for_all_inputs_are_those_of_this_machine(self, device: Device, artifact: Artifact) -> None:
        """In PyTorch's layout, all batches; where the device's program gives none, nothing is called verified."""
        inputs = _inputs(artifact, batches=3)
        handed: list[tuple[Array, ...]] = []

        def check_outputs(outputs: tuple[Array, ...]) -> str:
            handed.append(outputs)
            return "as here"

        measured = device.measure(artifact, _QUICK, inputs=inputs, check_outputs=check_outputs)
        assert measured.verified == ("as here" if handed else None)
        for outputs in handed:
            for given, expected in zip(outputs, self.expected_outputs(artifact, inputs), strict=True):
                actual, here = given.astype(np.float64), expected.astype(np.float64)
                assert actual.shape == here.shape
                assert np.abs(actual - here).max() <= self.tolerance * np.abs(here).max()

    def test_wrong_outputs_are_not_kept(self, device: Device, artifact: Artifact) -> None:
        """The error of whoever checks them is handed on."""

        def refuse(_: tuple[Array, ...]) -> str:
            raise VerificationError("wrong outputs")

        try:
            measured = device.measure(artifact, _QUICK, inputs=_inputs(artifact), check_outputs=refuse)
        except VerificationError:
            assert _kept() == []
        else:
            assert measured.verified is None  # there were none to check

    def test_an_altered_artifact_is_refused(
        self, device: Device, artifact: Artifact, tmp_path: Path, refused: _Refused
    ) -> None:
        """What is measured is the file that was described."""
        path = tmp_path / "altered" / artifact.path.name
        with refused(DeviceError, "no artifact at"):
            device.measure(artifact.model_copy(update={"path": path}), _QUICK)
        path.parent.mkdir()
        path.write_bytes(b"something else")
        with refused(DeviceError, "altered"):
            device.measure(artifact.model_copy(update={"path": path}), _QUICK)

    def test_an_artifact_for_other_devices_is_unsupported(
        self, device: Device, artifact: Artifact, refused: _Refused
    ) -> None:
        """That is no failure of the device."""
        with refused(UnsupportedError, artifact.path.name):
            device.measure(artifact.model_copy(update={"format": "unheard-of"}), _QUICK)

    def test_inputs_that_are_not_the_artifacts_are_refused(
        self, device: Device, artifact: Artifact, refused: _Refused
    ) -> None:
        """Too many, of another shape, fewer than a batch."""
        inputs = _inputs(artifact)
        longer = [np.concatenate([array, array], axis=-1) for array in inputs]
        fewer = [array[:0] for array in inputs]
        for wrong, message in (([*inputs, *inputs], "takes"), (longer, "takes"), (fewer, "batches of")):
            with refused(DeviceError, message):
                device.measure(artifact, _QUICK, inputs=wrong)

    def test_what_takes_too_long_is_ended_in_time(self, device: Device, artifact: Artifact, refused: _Refused) -> None:
        """It is one error, and the device can be used again."""
        started = time.monotonic()
        with refused(DeviceError, device.name):
            device.measure(artifact, Conditions(runs=10**7, timeout_s=self.too_short_s))
        assert time.monotonic() - started < self.too_short_s + _GRACE_S
        assert device.measure(artifact, _QUICK).runs >= _QUICK.runs


class _Refused:
    """A block that must raise one error, and leave nothing on the device or in the store.

    Args:
        leftovers: Lists what is on the device now.
    """

    def __init__(self, leftovers: Callable[[], Collection[str]]) -> None:
        self._leftovers = leftovers

    @contextmanager
    def __call__(self, kind: type[DeviceError], message: str) -> Iterator[None]:
        before = set(self._leftovers())
        with pytest.raises(kind, match=re.escape(message)):
            yield
        _wait_until(lambda: set(self._leftovers()) <= before)
        assert _kept() == []


def _kept() -> list[object]:
    return [kept.measurement for kept in MeasurementStore.default().measurements()]


def _inputs(artifact: Artifact, batches: int = 1) -> list[Array]:
    """Return random inputs in PyTorch's layout."""
    random = np.random.default_rng(0)
    shapes = [(batches * spec.torch_shape[0], *spec.torch_shape[1:]) for spec in artifact.inputs]
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def _processes_here() -> set[int]:
    """Return the processes that this one started, and those that they started."""
    return {process.pid for process in psutil.Process().children(recursive=True)}


def _wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds that may need a moment: what was killed is gone."""
    end = time.monotonic() + _GRACE_S
    while not holds():
        assert time.monotonic() < end, "something was left"
        time.sleep(_POLL_S)
