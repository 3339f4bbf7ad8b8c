"""Image data: its sources, its batches, and the built-in tasks made from it."""

from __future__ import annotations

from sekron_edge.data._classification import CLASSIFICATION, ClassificationData, classification, softened_divergence
from sekron_edge.data._image_folder import image_folder
from sekron_edge.data._images import AugmentedImages, ImageData, batch_of, collate
from sekron_edge.data._photographs import CropPairs, Photographs, photographs
from sekron_edge.data._preprocessing import Preprocessing
from sekron_edge.data._sources import digits, fashion_mnist, load_source
from sekron_edge.data._super_resolution import SUPER_RESOLUTION, SuperResolutionData, super_resolution
from sekron_edge.data._unlabelled import calibration_batch, output_agreement, output_divergence, referenced, unlabelled

__all__ = [
    "CLASSIFICATION",
    "SUPER_RESOLUTION",
    "AugmentedImages",
    "ClassificationData",
    "CropPairs",
    "ImageData",
    "Photographs",
    "Preprocessing",
    "SuperResolutionData",
    "batch_of",
    "calibration_batch",
    "classification",
    "collate",
    "digits",
    "fashion_mnist",
    "image_folder",
    "load_source",
    "output_agreement",
    "output_divergence",
    "photographs",
    "referenced",
    "softened_divergence",
    "super_resolution",
    "unlabelled",
]
