"""Where images come from: scikit-learn's digits, Debian's Fashion-MNIST, and folders of images."""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sekron_edge.data._images import ImageData
from sekron_edge.errors import ConfigError, DataError, MissingDependencyError
from sekron_edge.files import whole_file

SOURCES = ("digits", "fashion-mnist", "image-folder")

_FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

_Bytes = npt.NDArray[np.uint8]


def load_source(
    name: str,
    path: Path | None = None,
    *,
    size: int | None = None,
    cache: Path | None = None,
    seed: int = 0,
) -> ImageData:
    """Load images by the name of their source.

    Args:
        name: ``digits``, ``fashion-mnist`` or ``image-folder``.
        path: Folder (or zip) of the data; required by ``image-folder``.
        size: ``image-folder``: resize to ``size`` x ``size``.
        cache: ``image-folder``: folder for decoded images.
        seed: ``digits``: seed of the split.
    """
    if name == "digits":
        return digits(seed=seed)
    if name == "fashion-mnist":
        return fashion_mnist(path)
    if name == "image-folder":
        if path is None:
            raise ConfigError("the data source 'image-folder' needs a path to a folder or a zip; give one")
        return image_folder(path, size, cache=cache)
    raise ConfigError(f"the data source must be one of {', '.join(SOURCES)}; got {name!r}")


def digits(*, seed: int = 0) -> ImageData:
    """Load scikit-learn's 1797 digits as ``(1, 8, 8)`` images; a fifth is held out.

    Args:
        seed: Decides which images are held out.

    Raises:
        MissingDependencyError: If scikit-learn is absent.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError("scikit-learn", "data") from error
    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy(np.rint(pixels * (255 / 16)).astype(np.uint8)).view(-1, 1, 8, 8)
    targets = torch.from_numpy(classes.astype(np.int64))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held, kept = order[: len(images) // 5], order[len(images) // 5 :]
    return ImageData(images[kept], targets[kept], images[held], targets[held], tuple(str(digit) for digit in range(10)))


def fashion_mnist(path: Path | None = None) -> ImageData:
    """Load Fashion-MNIST, 60 000 + 10 000 images ``(1, 28, 28)``, from its IDX files.

    Args:
        path: Folder with the four ``.gz`` files; by default where Debian's package puts them.

    Raises:
        DataError: If a file is absent or broken.
    """
    folder = _FASHION_FOLDER if path is None else path
    parts: list[Tensor] = []
    for split in ("train", "t10k"):
        images = _read_idx(folder / f"{split}-images-idx3-ubyte.gz", 3)
        parts += [
            torch.from_numpy(images).unsqueeze(1),
            torch.from_numpy(_read_idx(folder / f"{split}-labels-idx1-ubyte.gz", 1).astype(np.int64)),
        ]
    return _image_data(parts, _FASHION_LABELS)


def _image_data(tensors: list[Tensor], labels: tuple[str, ...]) -> ImageData:
    """Make image data from images and targets, training first."""
    train_images, train_targets, heldout_images, heldout_targets = tensors
    return ImageData(train_images, train_targets, heldout_images, heldout_targets, labels)


def _read_idx(path: Path, axes: int) -> _Bytes:
    """Read a gzipped IDX file of unsigned bytes with that many axes."""
    if not path.is_file():
        raise DataError(f"Fashion-MNIST is not at {path}; install it with: sudo apt-get install dataset-fashion-mnist")
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is not a readable gzip file: {error}; install it again") from error
    start = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < start:
        raise DataError(f"{path} must be an IDX file of bytes with {axes} axes; install it again")
    shape = np.frombuffer(content, ">u4", axes, 4).astype(int)
    if len(content) - start != shape.prod():
        raise DataError(f"{path} promises {shape.prod()} bytes and holds {len(content) - start}; install it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def image_folder(path: Path, size: int | None = None, *, cache: Path | None = None) -> ImageData:
    """Load images from ``train/<class>/`` and ``test/<class>/`` of a folder, or of a zip of one.

    Args:
        path: The folder or the zip.
        size: Resize each image to ``size`` x ``size``; without it, all must have one size.
        cache: Folder in which the decoded images are kept for the next time.

    Returns:
        RGB images; the test images are the held-out ones, the classes are in sorted order.

    Raises:
        DataError: If an image is broken or of another size, or a class has no test images.
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        stamps = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files]
        names = [file.relative_to(path).as_posix() for file in files]
        stored = _cache_file(cache, path, size, repr((names, stamps)))
        return _load_images(path, names, lambda name: (path / name).read_bytes(), size, stored)
    if not path.is_file():
        raise DataError(f"there is no folder and no zip at {path}; check the path")
    stat = path.stat()
    stored = _cache_file(cache, path, size, repr((stat.st_mtime_ns, stat.st_size)))
    try:
        with zipfile.ZipFile(path) as archive:
            return _load_images(path, sorted(archive.namelist()), archive.read, size, stored)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} must be a folder or a zip of one: {error}") from error


def _cache_file(cache: Path | None, path: Path, size: int | None, version: str) -> Path | None:
    """Name the cache file of these contents of ``path`` at this size."""
    if cache is None:
        return None
    key = hashlib.sha256(f"{path.resolve()}\n{size}\n{version}".encode()).hexdigest()
    return cache / f"images-{key[:24]}.npz"


def _load_images(
    path: Path,
    names: list[str],
    read: Callable[[str], bytes],
    size: int | None,
    stored: Path | None,
) -> ImageData:
    """Decode the images among ``names``, or take them from the cache."""
    if stored is not None and stored.is_file():
        with np.load(stored, allow_pickle=False) as arrays:
            tensors = [torch.from_numpy(arrays[key]) for key in _ARRAYS]
            return _image_data(tensors, tuple(str(label) for label in arrays["labels"]))
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    for name in names:
        parts = PurePosixPath(name).parts
        if len(parts) == 3 and parts[0] in splits and PurePosixPath(name).suffix.lower() in _SUFFIXES:
            splits[parts[0]].append((parts[1], name))
    labels = sorted({label for label, _ in splits["train"]})
    if not labels:
        raise DataError(f"{path} must have images in train/<class>/ and test/<class>/; found none in train")
    tested = {label for label, _ in splits["test"]}
    if odd := sorted(set(labels) ^ tested):
        raise DataError(f"{path} must have images of every class in train and in test; only one has {odd}")
    index = {label: position for position, label in enumerate(labels)}
    decoded: list[npt.NDArray[Any]] = []
    for split in splits.values():
        pixels = _decode([name for _, name in split], read, size)
        decoded += [pixels, np.array([index[label] for label, _ in split], dtype=np.int64)]
    if stored is not None:
        with whole_file(stored) as temporary:
            stacked = dict(zip(_ARRAYS, decoded, strict=True))
            np.savez(temporary, allow_pickle=False, labels=np.array(labels), **stacked)
    return _image_data([torch.from_numpy(array) for array in decoded], tuple(labels))


_ARRAYS = ("train_images", "train_targets", "heldout_images", "heldout_targets")


def _decode(names: list[str], read: Callable[[str], bytes], size: int | None) -> _Bytes:
    """Decode images to ``(N, 3, H, W)`` in threads."""
    from PIL import Image

    def decode(name: str) -> _Bytes:
        try:
            with Image.open(BytesIO(read(name))) as image:
                colours = image.convert("RGB")
        except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
            raise DataError(f"{name} is not a readable image: {error}; repair or remove it") from error
        if size is not None:
            colours = colours.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(colours, dtype=np.uint8).transpose(2, 0, 1)

    first = decode(names[0])
    images = np.empty((len(names), *first.shape), dtype=np.uint8)

    def place(position: int) -> None:
        image = decode(names[position])
        if image.shape != first.shape:
            raise DataError(
                f"{names[position]} is {image.shape[2]}x{image.shape[1]} and {names[0]} is "
                f"{first.shape[2]}x{first.shape[1]}; give a size to resize all images to"
            )
        images[position] = image

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(place, range(len(names))):
            pass
    return images
