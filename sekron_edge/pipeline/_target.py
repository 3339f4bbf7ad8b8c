"""Where a model is to run: the profile joined with what the user asked for, and its latency model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sekron_edge.artifacts import (
    Precision,
    PrimitiveExporter,
    SizedExporter,
    exporter_family,
    exporter_names,
    get_exporter,
)
from sekron_edge.devices import (
    DeviceProfile,
    LatencyModel,
    cached_calibration,
    comparable_device,
    microcontroller_latency,
    reference_primitives,
)
from sekron_edge.errors import ConfigError
from sekron_edge.planner import Budget, Limit
from sekron_edge.primitives import WEIGHTS_ALONE, FileCosts

_CALIBRATED_BY_DEFAULT = "litert"


@dataclass(frozen=True)
class Target:
    """A device, the runtime whose latency counts there, and what is to be delivered.

    Attributes:
        profile: The device.
        runtime: Format whose latency and size are budgeted.
        formats: Formats to deliver; ``runtime`` is one of them.
        precisions: Of the artifacts, each format in those that it can; the first is budgeted.
        threads: That the runtime may use.
        runs: Least number of timed runs.
    """

    profile: DeviceProfile
    runtime: str
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...]
    threads: int
    runs: int

    @classmethod
    def choose(
        cls,
        profile: DeviceProfile,
        *,
        runtime: str | None = None,
        formats: Sequence[str] | None = None,
        precisions: Sequence[Precision] = ("fp32",),
        threads: int | None = None,
        runs: int = 50,
    ) -> Target:
        """Fill in what was not asked for from the profile.

        Raises:
            ConfigError: If no exporter writes the runtime's format, or a format knows none of the precisions.
        """
        known = exporter_names()
        chosen = runtime or profile.runtime
        delivered = (
            tuple(formats) if formats is not None else tuple(f for f in profile.formats if exporter_family(f) in known)
        )
        for name in (chosen, *delivered):
            if exporter_family(name) not in known:
                raise ConfigError(
                    f"{profile.id} would get the format {name!r}, which no installed exporter writes; choose the "
                    f"target's runtime and formats among {', '.join(known)}"
                )
        if chosen not in delivered:
            delivered = (chosen, *delivered)
        for name in delivered:
            if not set(precisions) & set(get_exporter(name).precisions):
                raise ConfigError(
                    f"{name} exports {', '.join(get_exporter(name).precisions)}, none of {', '.join(precisions)}; "
                    "name one of them in the target's precisions"
                )
        if precisions[0] not in get_exporter(chosen).precisions:
            raise ConfigError(
                f"the first precision, {precisions[0]}, is what budgets are for, and {chosen} exports "
                f"{', '.join(get_exporter(chosen).precisions)}; put one of those first"
            )
        return cls(profile, chosen, delivered, tuple(precisions), threads or profile.threads, runs)

    @property
    def precision(self) -> Precision:
        """The precision that is budgeted."""
        return self.precisions[0]

    @property
    def is_here(self) -> bool:
        """Whether artifacts can be measured on the device: it is this machine."""
        return self.profile.kind == "host"

    @property
    def file_costs(self) -> FileCosts:
        """What operations take in the budgeted artifact beside their weights; nothing where nobody knows."""
        exporter = get_exporter(self.runtime)
        known = exporter.file_costs if isinstance(exporter, SizedExporter) else {}
        return known.get(self.precision, WEIGHTS_ALONE)

    def latency_model(self, *, cache: Path | None = None) -> LatencyModel:
        """Return the latency model: measured on this machine, or estimated from it for another device.

        For another device this machine's calibration, without a matrix unit, is scaled by a published latency of
        MobileNetV1 there; for a microcontroller, cycles a MAC are taken from published networks. The model's
        ``source`` says so.
        """
        counted = microcontroller_latency(self.profile)
        if counted is not None:
            return counted
        runtime, precision = self._calibrated()
        calibrated = partial(cached_calibration, runtime, threads=self.threads, cache=cache)
        if not self.is_here:
            calibrated = partial(cached_calibration, runtime, device=comparable_device(), cache=cache)
        model = calibrated(precision=precision)
        if (runtime, precision) != (self.runtime, self.precision):
            said = f"estimated for {self.runtime} {self.precision}, which cannot be calibrated"
            model = model.scaled(1.0, said)
        if self.is_here:
            return model
        published = self.profile.facts.mobilenet_v1
        if published is None or published.value is None:
            return model.scaled(1.0, f"estimated: as on this machine, since none is known for {self.profile.id}")
        factor = published.value / calibrated(precision="fp32").latency_ms(reference_primitives())
        return model.scaled(
            factor,
            f"estimated, so that MobileNetV1 in fp32 takes the {published} known for {self.profile.id} (one thread)",
        )

    def _calibrated(self) -> tuple[str, Precision]:
        """Return the runtime and precision whose primitives say most about the target's."""
        for runtime in (self.runtime, _CALIBRATED_BY_DEFAULT):
            exporter = get_exporter(runtime)
            if isinstance(exporter, PrimitiveExporter) and self.precision in exporter.primitive_precisions:
                return runtime, self.precision
        return _CALIBRATED_BY_DEFAULT, "fp32"

    def require_known_latency(self, budget: Budget) -> None:
        """Refuse a budget in milliseconds for a device of which no latency is known at all.

        Raises:
            ConfigError: If that is so.
        """
        limit = budget.latency_ms
        published = self.profile.facts.mobilenet_v1
        known = published is not None and published.value is not None
        known = known or microcontroller_latency(self.profile) is not None
        if limit is None or limit.relative or self.is_here or known:
            return
        raise ConfigError(
            f"a budget of {limit} ms needs a latency that is known for {self.profile.id}, and its profile states none; "
            'give a relative budget ("0.5x"), or state facts.mobilenet_v1 in a copy of the profile'
        )

    def with_device_limits(self, budget: Budget) -> Budget:
        """Add what the device's memory allows to a budget that does not speak of it."""
        facts = self.profile.facts
        added = {}
        if budget.peak_memory_bytes is None and facts.usable_ram is not None and facts.usable_ram.value is not None:
            added["peak_memory_bytes"] = Limit(value=float(facts.usable_ram.value))
        if budget.artifact_bytes is None and facts.flash is not None and facts.flash.value is not None:
            added["artifact_bytes"] = Limit(value=float(facts.flash.value))
        return budget.model_copy(update=added)
