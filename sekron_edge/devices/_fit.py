"""Whether an artifact fits a microcontroller: its file in flash, its arena in memory."""

from __future__ import annotations

from sekron_edge.artifacts import Artifact
from sekron_edge.budget import FILE_SIZE, PEAK_MEMORY, resources
from sekron_edge.devices._profile import DeviceProfile
from sekron_edge.errors import ConfigError, InfeasibleBudgetError


def device_limits(profile: DeviceProfile) -> dict[str, float]:
    """Return what a device's facts allow, by the names of resources; facts that a profile does not state limit nothing.

    Raises:
        ConfigError: If a resource names a fact that no profile has.
    """
    limits = {}
    facts = dict(profile.facts)
    for resource in resources().values():
        if resource.device_fact is None:
            continue
        if resource.device_fact not in facts:
            raise ConfigError(
                f"{resource.name!r} is limited by the fact {resource.device_fact!r}, which no profile has; profiles "
                f"have {', '.join(facts)}"
            )
        fact = facts[resource.device_fact]
        if fact is not None and fact.value is not None:
            limits[resource.name] = float(fact.value)
    return limits


def require_fit(profile: DeviceProfile, artifact: Artifact) -> None:
    """Refuse an artifact that a device has no room for; facts that a profile does not state refuse nothing.

    Flash holds the firmware beside the model, which nobody knows here.

    Raises:
        InfeasibleBudgetError: If the file is larger than flash, the arena than the memory that can be used, or what an
            accelerator works in than SRAM.
    """
    flash, memory, arena = profile.facts.flash, profile.facts.usable_ram, artifact.arena
    if flash is not None and flash.value is not None and artifact.size_bytes > flash.value:
        raise InfeasibleBudgetError(
            f"{artifact.path.name} has {artifact.size_bytes:,} bytes, and {profile.name} {flash} of flash; ask for a "
            f"smaller {FILE_SIZE.name}, or choose a larger device",
            binding=[FILE_SIZE.name],
            nearest=[{FILE_SIZE.name: float(artifact.size_bytes)}],
        )
    npu, sizes = artifact.npu, artifact.npu_sizes
    if npu is not None:
        _require_sram(profile, artifact, npu.sram_bytes, f"estimated for {npu.accelerator}")
    if sizes is not None:
        _require_sram(profile, artifact, sizes.sram_bytes, f"read from the file, compiled for {sizes.accelerator}")
    if arena is not None and memory is not None and memory.value is not None and arena.size_bytes > memory.value:
        raise InfeasibleBudgetError(
            f"{artifact.path.name} needs an arena of {arena.size_bytes:,} bytes (tested, {arena.margin:.0%} margin), "
            f"and {profile.name} has {memory} to use. Most is live where {arena.peak}: make that tensor "
            "smaller, or choose a larger device",
            binding=[PEAK_MEMORY.name],
            nearest=[{PEAK_MEMORY.name: float(arena.size_bytes)}],
        )


def _require_sram(profile: DeviceProfile, artifact: Artifact, needed: int, found: str) -> None:
    sram = profile.facts.sram
    if sram is not None and sram.value is not None and needed > sram.value:
        raise InfeasibleBudgetError(
            f"{artifact.path.name} needs {needed:,} bytes of SRAM ({found}), and {profile.name} has {sram}; make the "
            "largest intermediate smaller, or choose a larger device",
            binding=[PEAK_MEMORY.name],
            nearest=[{PEAK_MEMORY.name: float(needed)}],
        )
