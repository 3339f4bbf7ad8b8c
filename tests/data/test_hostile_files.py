"""Damaged files and bombs: each is one error that names it, in little memory; what can be read is read right."""

import contextlib
import gzip
import io
import random
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sekron_edge.data import image_folder
from sekron_edge.data._arrays import read_arrays
from sekron_edge.data._sources import fashion_mnist
from sekron_edge.errors import DataError

MOST_BYTES = 400 << 20
MUTATIONS = 150


@pytest.fixture
def little_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MOST_BYTES


def mutated(content: bytes, seed: int) -> bytes:
    """Return a file with one thing wrong: bits, a piece cut out or doubled, zeros, an end that is missing."""
    drawn = random.Random(seed)
    at, size = drawn.randrange(len(content)), drawn.randrange(1, 40)
    kind = seed % 5
    if kind == 0:
        return content[:at] + bytes([content[at] ^ (1 << drawn.randrange(8))]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + content[at + size :]
    if kind == 2:
        return content[:at] + content[at : at + size] + content[at:]
    if kind == 3:
        return content[:at] + bytes(size) + content[at + size :]
    return content[:at]


def survived(read: Callable[[], object]) -> None:
    """Read something that may be damaged: it is read, or refused."""
    with contextlib.suppress(DataError):
        read()


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"][seed % 6])
    return stream.getvalue()


def packed(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for seed, split in enumerate(("train", "test")):
            for name in ("ant", "bee"):
                archive.writestr(f"{split}/{name}/0.png", picture(6 * seed))
    return stream.getvalue()


@pytest.mark.usefixtures("little_memory")
def test_damaged_zips_are_read_or_refused(tmp_path: Path) -> None:
    whole = [packed(zipfile.ZIP_STORED), packed()]
    for seed in range(MUTATIONS):
        path = tmp_path / f"{seed}.zip"
        path.write_bytes(mutated(whole[seed // 5 % 2], seed))
        survived(partial(image_folder, path, cache=tmp_path / "cache"))


@pytest.mark.usefixtures("little_memory")
def test_damaged_images_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "images" / "test" / "ant" / "0.png"
    path.parent.mkdir(parents=True)
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(picture(seed // 5), seed))
        survived(lambda: image_folder(tmp_path / "images"))


def idx(shape: tuple[int, ...]) -> bytes:
    return gzip.compress(
        bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + bytes(int(np.prod(shape)))
    )


@pytest.mark.usefixtures("little_memory")
def test_damaged_idx_files_are_read_or_refused(tmp_path: Path) -> None:
    sizes = {"train-images-idx3": (4, 3, 3), "train-labels-idx1": (4,), "t10k-images-idx3": (2, 3, 3),
             "t10k-labels-idx1": (2,)}  # fmt: skip
    for name, shape in sizes.items():
        (tmp_path / f"{name}-ubyte.gz").write_bytes(idx(shape))
    assert fashion_mnist(tmp_path).train_images.shape == (4, 1, 3, 3)
    first = tmp_path / "train-images-idx3-ubyte.gz"
    for seed in range(MUTATIONS):
        first.write_bytes(mutated(idx((4, 3, 3)), seed))
        survived(lambda: fashion_mnist(tmp_path))
    for content in (
        gzip.compress(bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**31, 2**31, 2**31)),
        idx((4, 3, 3))[:-9],
        b"",
    ):
        first.write_bytes(content)
        with pytest.raises(DataError, match="train-images"):
            fashion_mnist(tmp_path)


@pytest.mark.usefixtures("little_memory")
def test_damaged_arrays_are_read_or_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.savez(stream, inputs=np.ones((4, 2), np.float32), targets=np.ones((4, 1), np.float32))
    path = tmp_path / "rows.npz"
    for seed in range(MUTATIONS):
        path.write_bytes(mutated(stream.getvalue(), seed))
        survived(lambda: read_arrays(path))


def png(width: int, height: int) -> bytes:
    """Return a valid image of one colour, a thousandth of its pixels in bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + width)) for _ in range(height)) + packer.flush()
    head = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.usefixtures("little_memory")
def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pixels.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(2):
            archive.writestr(f"test/ant/{index}.png", png(12_000, 12_000 + index))
    with pytest.raises(DataError, match=r"0\.png has 12000x12000 pixels"):
        image_folder(tmp_path / "pixels.zip")
    with (
        zipfile.ZipFile(tmp_path / "bytes.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("test/ant/0.png", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(DataError, match=r"0\.png in .* would be 314,572,800 bytes"):
        image_folder(tmp_path / "bytes.zip")
    (tmp_path / "bytes.zip").rename(tmp_path / "rows.npz")
    with pytest.raises(DataError, match="would be"):
        read_arrays(tmp_path / "rows.npz")
    names = ["train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"]
    for name in names:
        (tmp_path / f"{name}-ubyte.gz").write_bytes(idx((2, 3, 3) if "idx3" in name else (2,)))
    packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    content = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    (tmp_path / f"{names[0]}-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match="must be an IDX file"):
        fashion_mnist(tmp_path)


def test_encrypted_members_are_refused_by_name(tmp_path: Path) -> None:
    content = bytearray(packed())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 1)
    (tmp_path / "secret.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        image_folder(tmp_path / "secret.zip")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_as_their_camera_says(orientation: int, tmp_path: Path) -> None:
    upright = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    # What the sensor stored: the inverse of what the tag asks for.
    turns: dict[int, Callable[[Any], Any]] = {
        1: lambda x: x, 2: np.fliplr, 3: lambda x: np.rot90(x, 2), 4: np.flipud, 5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1), 7: lambda x: np.rot90(x, 2).transpose(1, 0, 2), 8: lambda x: np.rot90(x, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    for split, pixels in (("train", 255 - upright), ("test", upright)):
        folder = tmp_path / split / "ant"
        folder.mkdir(parents=True)
        stored = Image.fromarray(np.ascontiguousarray(turns[orientation](pixels)))
        stored.save(folder / "0.png", exif=exif)
    for most in (1 << 20, 0):
        images = image_folder(tmp_path, memory_bytes=most).heldout_images
        assert torch.equal(images[torch.arange(1)][0], torch.from_numpy(upright).permute(2, 0, 1))
