"""Images in one folder a class: in memory where they fit, else read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from sekron_edge import cache as results
from sekron_edge.data._classes import Classes
from sekron_edge.data._file_tensors import MEMORY_BYTES, FileTensors, StackedImages
from sekron_edge.data._files import FileTree
from sekron_edge.data._images import ImageData, Images
from sekron_edge.data._notes import reading_notes
from sekron_edge.data._preprocessing import SUFFIXES, Preprocessing
from sekron_edge.data._set_aside import balanced, set_aside
from sekron_edge.data._skipped import OTHER_KIND
from sekron_edge.data._split_files import split_files
from sekron_edge.errors import DataError

# Raised when the same files give other pixels.
_DECODING = 2


def image_folder(
    path: Path,
    preprocessing: Preprocessing | None = None,
    *,
    classes: Path | None = None,
    train: str | None = None,
    heldout: str | None = None,
    calibration_samples: int = 512,
    seed: int = 0,
    cache: Path | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> ImageData:
    """Load images from ``train/<class>/`` and ``test/<class>/`` (or ``val``) of a folder, or of a zip of one.

    Without training images, some of the held-out ones are set aside for calibration, evenly over the classes, and are
    held out no longer. Images stay in memory if they take at most ``memory_bytes`` decoded, else each is read when it
    is needed: the pixels are the same.

    Args:
        path: The folder or the zip.
        preprocessing: Brings images to one shape; without it, all must have one.
        classes: File with the folders' names in the order of the model's outputs, one on a line; the data may have
            fewer. By default the classes are the folders in sorted order.
        train: Folder of the training images; by default ``train``.
        heldout: Folder of the held-out images; by default the first that exists of ``test``, ``val`` and the like.
        calibration_samples: Images to set aside where there are no training images; at most half of all.
        seed: Chooses those.
        cache: Folder in which decoded images are kept for the next time, if they stay in memory.
        memory_bytes: Most bytes of decoded images in memory.

    Raises:
        DataError: If an image is broken or of another size, a folder is none of the classes, or, without a file of
            classes, a class is in only one of training and held-out images; or every held-out image is a copy of a
            training image.
    """
    preprocessing = preprocessing or Preprocessing()
    tree = FileTree(path)
    splits = split_files(tree, train=train, heldout=heldout, why_not=_why_not, form="images in <class>/")
    found = tuple({_class_of(inside) for inside, _ in split} for split in (splits.train, splits.heldout))
    if classes is None:
        if splits.train and (odd := sorted(found[0] ^ found[1])):
            raise DataError(
                f"{path} must have images of every class in training and held-out images; only one has {odd}. "
                "If these are some of the model's classes, name all in a file: data.classes"
            )
        known = Classes.in_order(found[1])
    else:
        known = Classes.from_file(classes)
        known.require(found[0] | found[1], path, classes)

    def part(files: Iterable[tuple[str, str]]) -> tuple[list[str], Tensor]:
        listed = list(files)
        targets = [known.index[_class_of(inside)] for inside, _ in listed]
        return [name for _, name in listed], torch.tensor(targets, dtype=torch.int64)

    names, targets = part(splits.heldout)
    if splits.train:
        parts = [part(splits.train), (names, targets)]
    else:
        count = set_aside(len(names), calibration_samples, path)
        order = balanced(targets, len(targets), seed)
        chosen = [order[:count].sort().values, order[count:].sort().values]
        parts = [([names[int(index)] for index in one], targets[one]) for one in chosen]
    pictures = [
        StackedImages(FileTensors(tree, part, preprocessing.pixels, memory_bytes=memory_bytes)) for part, _ in parts
    ]
    notes = reading_notes(
        tree,
        "images",
        *(part for part, _ in parts),
        skipped=splits.skipped,
        classes=sorted(found[0] | found[1]),
        set_aside=not splits.train,
    )
    images = _in_memory(pictures, tree, (preprocessing, [part for part, _ in parts]), cache, memory_bytes)
    return ImageData(images[0], parts[0][1], images[1], parts[1][1], known.labels, notes)


def _why_not(inside: str) -> str | None:
    name = PurePosixPath(inside)
    if name.suffix.lower() not in SUFFIXES:
        return OTHER_KIND
    return None if len(name.parts) > 1 else "in no folder of a class"


def _class_of(inside: str) -> str:
    return PurePosixPath(inside).parts[0]


def _in_memory(
    pictures: list[StackedImages], tree: FileTree, version: object, cache: Path | None, memory_bytes: int
) -> list[Images]:
    """Decode all images, or take them from the cache; leave them where they are if they are too many."""
    shape = pictures[0].shape[1:]
    if sum(map(len, pictures)) * shape.numel() > memory_bytes:
        return [*pictures]
    stored = None
    if cache is not None:
        key = hashlib.sha256(f"{_DECODING}\n{tree.path.resolve()}\n{version}\n{tree.stamp()}".encode()).hexdigest()
        stored = cache / f"images-{key[:24]}.npz"
        known = results.known(stored, lambda path: _stored(path, len(pictures)))
        if known is not None:
            return [*known]
    decoded = [split.decoded() for split in pictures]
    if stored is not None:
        arrays = {f"split{position}": images.numpy() for position, images in enumerate(decoded)}
        results.keep(stored, lambda path: np.savez(path, allow_pickle=False, **arrays))
    return [*decoded]


def _stored(path: Path, splits: int) -> list[Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return [torch.from_numpy(arrays[f"split{position}"]) for position in range(splits)]
