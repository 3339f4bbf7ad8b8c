"""Where images come from: scikit-learn's digits, Debian's Fashion-MNIST, and folders of images."""

from __future__ import annotations

import zlib
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sekron_edge.data._image_folder import image_folder
from sekron_edge.data._images import ImageData
from sekron_edge.data._limits import MOST_FILE_BYTES, gunzipped
from sekron_edge.data._preprocessing import Preprocessing
from sekron_edge.errors import ConfigError, DataError, MissingDependencyError

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
        return image_folder(path, Preprocessing(size=None if size is None else (size, size)), cache=cache)
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
    packed, start = path.read_bytes(), 4 + 4 * axes
    try:
        head = gunzipped(packed, start)
        if head[:4] != bytes((0, 0, 8, axes)) or len(head) < start:
            raise DataError(f"{path} must be an IDX file of bytes with {axes} axes; install it again")
        shape = tuple(int(size) for size in np.frombuffer(head, ">u4", axes, 4))
        promised = prod(shape)
        content = gunzipped(packed, start + min(promised, MOST_FILE_BYTES) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a readable gzip file: {error}; install it again") from error
    if len(content) - start != promised:
        more = "more" if len(content) - start > promised else len(content) - start
        raise DataError(f"{path} promises {promised} bytes and holds {more}; install it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
