"""Whether an artifact fits a microcontroller: its file in flash, its arena in memory."""

from __future__ import annotations

from sekron_edge.artifacts import Artifact
from sekron_edge.devices._profile import DeviceProfile
from sekron_edge.errors import InfeasibleBudgetError


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
            "smaller artifact_bytes, or choose a larger device",
            binding=["artifact_bytes"],
            nearest=[{"artifact_bytes": float(artifact.size_bytes)}],
        )
    npu, sram = artifact.npu, profile.facts.sram
    if npu is not None and sram is not None and sram.value is not None and npu.sram_bytes > sram.value:
        raise InfeasibleBudgetError(
            f"{artifact.path.name} needs {npu.sram_bytes:,} bytes of SRAM (estimated for {npu.accelerator}), and "
            f"{profile.name} has {sram}; make the largest intermediate smaller, or choose a larger device",
            binding=["peak_memory_bytes"],
            nearest=[{"peak_memory_bytes": float(npu.sram_bytes)}],
        )
    if arena is not None and memory is not None and memory.value is not None and arena.size_bytes > memory.value:
        raise InfeasibleBudgetError(
            f"{artifact.path.name} needs an arena of {arena.size_bytes:,} bytes (tested, {arena.margin:.0%} margin), "
            f"and {profile.name} has {memory} to use. Most is live where {arena.peak}: make that tensor "
            "smaller, or choose a larger device",
            binding=["peak_memory_bytes"],
            nearest=[{"peak_memory_bytes": float(arena.size_bytes)}],
        )
