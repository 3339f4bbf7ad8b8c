"""Latency of microcontrollers, estimated: cycles per multiply-accumulate, from published whole networks in int8.

Each figure is latency times clock over MACs of networks that others measured. Networks differ, so the spread is part of
it. Kernels matter more than cores: the same core is ten times slower with reference kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

from sekron_edge.artifacts import Artifact
from sekron_edge.devices._profile import DeviceProfile
from sekron_edge.latency import LatencyModel
from sekron_edge.measurement import Footprint

_TINY = "https://github.com/mlcommons/tiny_results_"
# What the published networks ran in, but for the figures of X-CUBE-AI, which nothing is estimated from.
_RUNTIME = "tflm"
# Operations that only move values: load, requantize, store. Chosen, not measured; networks spend little there.
_CYCLES_A_VALUE = 4.0
_CYCLES_A_CALL = 2000.0


@dataclass(frozen=True)
class CyclesPerMac:
    """Cycles of one core for a multiply-accumulate in int8 with one library of kernels.

    Attributes:
        core: Arm's or Espressif's name of it.
        kernels: The library.
        typical: A figure between those of the networks.
        low, high: The extremes among them.
        source: The origin of the measurements.
    """

    core: str
    kernels: str
    typical: float
    low: float
    high: float
    source: str

    def milliseconds(self, macs: int, clock_mhz: float) -> tuple[float, float, float]:
        """Return the typical, the shortest and the longest time of this many MACs."""
        typical, low, high = (cycles * macs / clock_mhz / 1e3 for cycles in (self.typical, self.low, self.high))
        return typical, low, high


CYCLES_PER_MAC = (
    CyclesPerMac("Cortex-M0+", "CMSIS-NN", 14.4, 7.8, 14.4, "person_detect on RP2040; MLPerf Tiny 1.2, STM32G0B1"),
    CyclesPerMac("Cortex-M4", "CMSIS-NN", 4.2, 2.7, 9.7, f"{_TINY}v0.5, v1.0, v1.1: four networks on NUCLEO-L4R5ZI"),
    CyclesPerMac("Cortex-M4", "X-CUBE-AI", 1.8, 1.4, 2.4, f"{_TINY}v1.2: four networks on NUCLEO-L4R5ZI"),
    CyclesPerMac("Cortex-M33", "CMSIS-NN", 3.5, 3.0, 4.0, f"{_TINY}v1.0: four networks on nRF5340-DK"),
    CyclesPerMac("Cortex-M7", "CMSIS-NN", 4.3, 3.8, 4.8, "mit-han-lab/tinyengine on GitHub: eight networks, STM32H743"),
    CyclesPerMac("Cortex-M7", "X-CUBE-AI", 1.3, 0.88, 2.6, f"{_TINY}v1.1, v1.2: four networks on NUCLEO-H7A3ZI-Q"),
    CyclesPerMac(
        "Cortex-M7", "TFLM reference", 46.0, 44.0, 48.0, "mit-han-lab/tinyengine on GitHub: eight networks, STM32H743"
    ),
    CyclesPerMac("Cortex-M55", "CMSIS-NN", 0.73, 0.71, 0.76, "one network on Ambiq apollo510, by its maker; weak"),
    CyclesPerMac("Cortex-M85", "CMSIS-NN", 0.65, 0.33, 0.96, f"{_TINY}v1.2: four networks on EK-RA8D1"),
    CyclesPerMac(
        "Xtensa LX7", "ESP-NN", 1.8, 1.6, 2.4, "espressif/esp-tflite-micro on GitHub: person_detect, ESP32-S3"
    ),
)
# The kernels that TensorFlow Lite Micro is built with where speed counts, if not CMSIS-NN.
_USUAL = {"Xtensa LX7": "ESP-NN"}


def cycles_per_mac(profile: DeviceProfile) -> CyclesPerMac | None:
    """Return the figure for a device's core with the kernels that TensorFlow Lite Micro usually has there."""
    cpu = "" if profile.facts.cpu is None else str(profile.facts.cpu)
    matching = [
        figure
        for figure in CYCLES_PER_MAC
        if figure.core in cpu and figure.kernels == _USUAL.get(figure.core, "CMSIS-NN")
    ]
    return max(matching, key=lambda figure: len(figure.core), default=None)


def microcontroller_latency(profile: DeviceProfile) -> LatencyModel | None:
    """Return a latency model for TensorFlow Lite Micro in int8, estimated; None where core or clock is unknown."""
    figure, clock = cycles_per_mac(profile), profile.facts.clock
    if profile.runtime != _RUNTIME or figure is None or clock is None or clock.value is None:
        return None
    model = LatencyModel.estimated(
        gmacs_per_second=clock.value / figure.typical / 1e3,
        values_per_microsecond=clock.value / _CYCLES_A_VALUE,
        call_us=_CYCLES_A_CALL / clock.value,
    )
    said = (
        f"estimated for {profile.id}: {figure.typical:g} cycles a MAC ({figure.low:g} to {figure.high:g}) on "
        f"{figure.core} with {figure.kernels}, from {figure.source}"
    )
    return model.model_copy(update={"source": said, "precision": "int8"})


def footprint(artifact: Artifact, profile: DeviceProfile | None = None) -> Footprint | None:
    """Return what a microcontroller needs for an artifact; None where it is for another kind of device.

    Args:
        artifact: For TensorFlow Lite Micro, or an accelerator beside it.
        profile: Cycles are estimated for its core; an accelerator's cycles are its compiler's.
    """
    known = {
        "artifact_name": artifact.path.name, "artifact_sha256": artifact.sha256, "format": artifact.format,
        "flash_bytes": artifact.size_bytes, "macs": artifact.macs,
    }  # fmt: skip
    npu, sizes, arena = artifact.npu, artifact.npu_sizes, artifact.arena
    if npu is not None:
        return Footprint(
            **known, ram_bytes=npu.sram_bytes, cycles=npu.cycles, latency_ms=npu.latency_ms, source=str(npu)
        )
    if sizes is not None:
        return Footprint(**known, ram_bytes=sizes.arena_bytes, source=str(sizes))
    if arena is None:
        return None
    said = f"arena tested with {arena.kernels}, {arena.margin:.0%} margin; most is live where {arena.peak}"
    needs = Footprint(**known, ram_bytes=arena.size_bytes, source=said)
    figure = None if profile is None else cycles_per_mac(profile)
    clock = None if profile is None or profile.facts.clock is None else profile.facts.clock.value
    if figure is None or clock is None or not artifact.macs or artifact.precision != "int8":
        return needs
    typical, low, high = figure.milliseconds(artifact.macs, clock)
    counted = f"{figure.typical:g} cycles a MAC on {figure.core} with {figure.kernels}, estimated from {figure.source}"
    return needs.model_copy(
        update={
            "cycles": round(figure.typical * artifact.macs), "latency_ms": typical, "latency_range_ms": (low, high),
            "source": f"{said}; {counted}",
        }
    )  # fmt: skip
