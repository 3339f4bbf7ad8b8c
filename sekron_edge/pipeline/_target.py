"""The target of a model: the profile joined with the user's choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sekron_edge.artifacts import Precision, SizedExporter, exporter_family, exporter_names, get_exporter
from sekron_edge.budget import Budget
from sekron_edge.devices import DeviceProfile, device_limits
from sekron_edge.errors import ConfigError
from sekron_edge.measurement import Conditions
from sekron_edge.pipeline._place import Place
from sekron_edge.primitives import WEIGHTS_ALONE, FileCosts

# XNNPACK takes no operator of it, and LiteRT's own kernels are not calibrated.
_NOT_PLANNED: tuple[Precision, ...] = ("int16x8",)


@dataclass(frozen=True)
class Target:
    """A device, the runtime whose latency counts there, and the formats to deliver.

    Attributes:
        profile: The device.
        runtime: Format whose latency and size are budgeted.
        formats: Formats to deliver; ``runtime`` is one of them.
        precisions: Of the artifacts, each format in those that it supports; the first is budgeted.
        threads: Threads that the runtime may use.
        runs: Least number of timed runs.
        place: The place where artifacts are measured.
    """

    profile: DeviceProfile
    runtime: str
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...]
    threads: int
    runs: int
    place: Place

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
        measured_on: str | None = None,
    ) -> Target:
        """Complete the user's choices from the profile.

        Raises:
            ConfigError: If no exporter writes the runtime's format, a format supports none of the precisions, the first
                of them cannot be planned for, or no device has that name.
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
        if precisions[0] in _NOT_PLANNED:
            raise ConfigError(
                f"the first precision, {precisions[0]}, is what plans are for, and nothing says what operations take "
                f"in it; put int8 or fp32 first: {precisions[0]} is then delivered and measured beside it"
            )
        if precisions[0] not in get_exporter(chosen).precisions:
            raise ConfigError(
                f"the first precision, {precisions[0]}, is what budgets are for, and {chosen} exports "
                f"{', '.join(get_exporter(chosen).precisions)}; put one of those first"
            )
        return cls(
            profile,
            chosen,
            delivered,
            tuple(precisions),
            threads or profile.threads,
            runs,
            Place.of(profile, measured_on),
        )

    @property
    def precision(self) -> Precision:
        """The precision that is budgeted."""
        return self.precisions[0]

    @property
    def conditions(self) -> Conditions:
        """Conditions of timed measurements."""
        return Conditions(runs=self.runs, threads=self.threads)

    @property
    def file_costs(self) -> FileCosts:
        """Bytes of operations in the budgeted artifact beside their weights; none where they are unknown."""
        exporter = get_exporter(self.runtime)
        known = exporter.file_costs if isinstance(exporter, SizedExporter) else {}
        return known.get(self.precision, WEIGHTS_ALONE)

    def with_device_limits(self, budget: Budget) -> Budget:
        """Add the limits of the device's memory to a budget that does not mention it."""
        limits = device_limits(self.profile)
        return budget.with_limits({name: limits[name] for name in limits if budget.limit(name) is None})
