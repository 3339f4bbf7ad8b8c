"""The latency model of a target: measured on its device, or estimated from the known facts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from sekron_edge.artifacts import Precision, calibratable
from sekron_edge.budget import Budget
from sekron_edge.devices import DeviceProfile, microcontroller_latency
from sekron_edge.errors import ConfigError
from sekron_edge.latency import LatencyModel, cached_calibration, reference_primitives
from sekron_edge.measurement import comparable_device
from sekron_edge.pipeline._target import Target

_CALIBRATED_BY_DEFAULT = "litert"


def latency_model_of(target: Target, *, cache: Path | None = None) -> LatencyModel:
    """Return the latency model: measured on the device, or estimated for one that is not reached.

    For such a device this machine's calibration, without a matrix unit, is scaled by a published latency of
    MobileNetV1 there. For a microcontroller, cycles per MAC are taken from published networks. The model's ``source``
    says so.

    Args:
        target: The device, and the runtime and precision that are budgeted.
        cache: Folder of calibrations; by default that of all results.

    Raises:
        DeviceError: If the device cannot be calibrated.
    """
    counted = microcontroller_latency(target.profile)
    if counted is not None:
        return counted
    runtime, precision = _calibrated(target)
    calibration = partial(cached_calibration, runtime, threads=target.threads, cache=cache)
    if target.place.is_remote:
        calibration = partial(calibration, device=target.place.open())
    elif not target.place.is_here:
        calibration = partial(cached_calibration, runtime, device=comparable_device(), cache=cache)
    model = calibration(precision=precision)
    if (runtime, precision) != (target.runtime, target.precision):
        model = model.scaled(1.0, f"estimated for {target.runtime} {target.precision}, which cannot be calibrated")
    if target.place.is_reached:
        return model
    published_ms = _published_ms(target.profile)
    if published_ms is None:
        return model.scaled(1.0, f"estimated: as on this machine, since none is known for {target.profile.id}")
    return model.scaled(
        published_ms / calibration(precision="fp32").latency_ms(reference_primitives()),
        f"estimated, so that MobileNetV1 in fp32 takes the {target.profile.facts.mobilenet_v1} known for "
        f"{target.profile.id} (one thread)",
    )


def require_known_latency(target: Target, budget: Budget) -> None:
    """Refuse a budget in milliseconds for a device of which no latency is known at all.

    Raises:
        ConfigError: If the budget is in milliseconds and no latency is known.
    """
    limit = budget.latency_ms
    known = _published_ms(target.profile) is not None or microcontroller_latency(target.profile) is not None
    if limit is None or limit.relative or target.place.is_reached or known:
        return
    raise ConfigError(
        f"a budget of {limit} ms needs a latency that is known for {target.profile.id}, and its profile states none; "
        'give a relative budget ("0.5x"), say where it can be measured (target.measured_on), or state '
        "facts.mobilenet_v1 in a copy of the profile"
    )


def _calibrated(target: Target) -> tuple[str, Precision]:
    """Return the runtime and precision whose primitives are nearest to the target's."""
    for runtime in (target.runtime, _CALIBRATED_BY_DEFAULT):
        if calibratable(runtime, target.precision):
            return runtime, target.precision
    return _CALIBRATED_BY_DEFAULT, "fp32"


def _published_ms(profile: DeviceProfile) -> float | None:
    """Return the published latency of MobileNetV1 on the device, in milliseconds, if the profile states it."""
    published = profile.facts.mobilenet_v1
    return None if published is None else published.value
