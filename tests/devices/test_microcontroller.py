"""Microcontrollers: estimated latencies say so, and artifacts that do not fit are refused with the tensor's name."""

from pathlib import Path

import pytest

from sekron_edge.artifacts import Arena, Artifact
from sekron_edge.devices import (
    CYCLES_PER_MAC,
    cycles_per_mac,
    footprint,
    load_profile,
    microcontroller_latency,
    require_fit,
)
from sekron_edge.errors import InfeasibleBudgetError
from sekron_edge.primitives import Conv
from tests.narrowing import present

ARENA = Arena(
    least_bytes=200_000, margin=0.05, activation_bytes=190_000, peak="CONV_2D 3 writes '1.2' (1x28x28x96)", kernels="x"
)


def artifact(size: int, arena: Arena | None) -> Artifact:
    return Artifact(
        format="tflm", precision="int8", path=Path("net.tflite"), inputs=(), outputs=(), size_bytes=size, sha256="",
        versions={}, arena=arena,
    )  # fmt: skip


def test_the_arena_to_reserve_has_the_margin() -> None:
    assert ARENA.size_bytes == 210_000
    assert ARENA.model_copy(update={"least_bytes": 201}).size_bytes == 224


def test_what_does_not_fit_names_the_tensor() -> None:
    nano, large = load_profile("nano-33-ble-sense"), load_profile("stm32h743")
    require_fit(large, artifact(100_000, ARENA))
    require_fit(load_profile("raspberry-pi-5"), artifact(100_000_000, None))
    with pytest.raises(InfeasibleBudgetError, match=r"210,000 bytes .*5% margin.* 136 KiB .*CONV_2D 3 writes '1\.2'"):
        require_fit(nano, artifact(100_000, ARENA))
    with pytest.raises(InfeasibleBudgetError, match=r"3,000,000 bytes, and .* 2 MiB of flash"):
        require_fit(large, artifact(3_000_000, None))


@pytest.mark.parametrize("board", ["stm32h743", "stm32l4r5", "nano-33-ble-sense", "raspberry-pi-pico", "esp32-s3"])
def test_latency_is_cycles_a_mac_and_says_that_it_is_estimated(board: str) -> None:
    profile = load_profile(board)
    model, figure = present(microcontroller_latency(profile)), present(cycles_per_mac(profile))
    assert model.source.startswith(f"estimated for {board}: {figure.typical:g} cycles a MAC")
    conv = Conv((1, 64, 28, 28), 64, (3, 3), (1, 1), (1, 1), 1, (28, 28))
    typical, low, high = figure.milliseconds(conv.macs, present(present(profile.facts.clock).value))
    assert low <= typical <= high
    # What moves values is beside.
    assert typical <= model.latency_ms([conv]) <= 1.05 * typical


def test_other_devices_have_none() -> None:
    assert microcontroller_latency(load_profile("raspberry-pi-5")) is None
    assert microcontroller_latency(load_profile("corstone-300-u55")) is None
    assert all(figure.low <= figure.typical <= figure.high for figure in CYCLES_PER_MAC)


def test_a_footprint_says_what_is_counted_tested_and_estimated() -> None:
    board, found = load_profile("stm32l4r5"), artifact(100_000, ARENA).model_copy(update={"macs": 12_000_000})
    figure, needs = present(cycles_per_mac(board)), present(footprint(found, board))
    assert (needs.flash_bytes, needs.ram_bytes, needs.macs) == (100_000, 210_000, 12_000_000)
    assert needs.cycles == round(figure.typical * 12_000_000)
    assert needs.latency_ms == pytest.approx(present(needs.cycles) / 120_000)
    low, high = present(needs.latency_range_ms)
    assert low < present(needs.latency_ms) < high
    assert "tested with x, 5% margin" in needs.source
    assert "estimated from" in needs.source
    # Nobody said where it runs, or published how floats run there.
    for unknown in (footprint(found), footprint(found.model_copy(update={"precision": "fp32"}), board)):
        other = present(unknown)
        assert (other.ram_bytes, other.cycles, other.latency_ms) == (210_000, None, None)
    assert footprint(artifact(100, None), board) is None
