"""Image data: its sources, its batches, and the built-in tasks made from it."""

from __future__ import annotations

from sekron_edge.data._images import AugmentedImages, ImageData, collate
from sekron_edge.data._photographs import CropPairs, Photographs, photographs
from sekron_edge.data._sources import digits, fashion_mnist, image_folder, load_source
from sekron_edge.data._tasks import classification, super_resolution

__all__ = [
    "AugmentedImages",
    "CropPairs",
    "ImageData",
    "Photographs",
    "classification",
    "collate",
    "digits",
    "fashion_mnist",
    "image_folder",
    "load_source",
    "photographs",
    "super_resolution",
]
