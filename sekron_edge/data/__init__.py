"""Image data: where it comes from, how it is batched, and the classification task made of it."""

from __future__ import annotations

from sekron_edge.data._images import AugmentedImages, ImageData, collate
from sekron_edge.data._sources import digits, fashion_mnist, image_folder, load_source
from sekron_edge.data._tasks import classification

__all__ = [
    "AugmentedImages",
    "ImageData",
    "classification",
    "collate",
    "digits",
    "fashion_mnist",
    "image_folder",
    "load_source",
]
