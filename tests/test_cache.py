"""The cache: what is damaged there is made again, once, and never ends a job or gives another result."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sekron_edge import cache
from sekron_edge.data import image_folder
from sekron_edge.latency import LatencyModel

MODEL = LatencyModel.estimated(gmacs_per_second=10, values_per_microsecond=1000, call_us=1)


def kept(path: Path) -> LatencyModel:
    return LatencyModel.model_validate_json(path.read_bytes())


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> str:
        made.append(1)
        return "made"

    def result() -> str:
        return cache.cached(
            tmp_path / "new" / "result",
            read=Path.read_text,
            make=make,
            write=lambda text, path: path.write_text(text),
        )

    assert (result(), result(), made) == ("made", "made", [1])


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(cache._LOG, "warning", lambda text, *values: texts.append(text % values))
    return texts


def test_a_result_of_another_release_is_made_again_and_said_to_be(tmp_path: Path, said: list[str]) -> None:
    path = tmp_path / "latency.json"
    cache.keep_text(path, '{"schema": "of tomorrow"}')
    assert cache.known(path, kept) is None
    assert f"{path} cannot be used and is made again" in said[0]


def test_a_cache_that_cannot_be_written_to_costs_only_time(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "cache").write_text("a file")
    assert cache.cached(tmp_path / "cache" / "x", read=kept, make=lambda: MODEL, write=print) == MODEL
    assert "a result is not kept for the next time" in said[-1]


def test_damaged_images_are_decoded_again(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                seed = index + 4 * (split == "test")
                pixels = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")

    def loaded() -> torch.Tensor:
        images = image_folder(tmp_path / "data", cache=tmp_path / "cache").train_images
        assert isinstance(images, torch.Tensor)
        return images

    first = loaded()
    (stored,) = (tmp_path / "cache").glob("images-*.npz")
    whole = stored.read_bytes()
    for damaged in (whole[:100], whole[: len(whole) // 2], whole[:200] + b"\0" * 50 + whole[250:], b"", b"no zip"):
        stored.write_bytes(damaged)
        assert torch.equal(loaded(), first)
        assert stored.read_bytes() == whole
