"""Data, read when they are needed, and the built-in tasks made from them."""

from __future__ import annotations

from sekron_edge.data._audio import AUDIO, AudioData, Sounds
from sekron_edge.data._classification import CLASSIFICATION, ClassificationData, classification
from sekron_edge.data._denoising import DENOISING, DenoisingData, NoisyCrops, denoising
from sekron_edge.data._detection import Boxed, detection
from sekron_edge.data._detection_data import DETECTION, DetectionData
from sekron_edge.data._image_folder import image_folder
from sekron_edge.data._images import AugmentedImages, ImageData, batch_of, collate
from sekron_edge.data._labelled import labelled
from sekron_edge.data._log_mel import LogMel
from sekron_edge.data._outputs import softened_divergence
from sekron_edge.data._photographs import CropPairs, Crops, Photographs, photographs
from sekron_edge.data._preprocessing import Preprocessing
from sekron_edge.data._regression import keypoints, regression
from sekron_edge.data._regression_data import REGRESSION, RegressionData
from sekron_edge.data._rows import Rows
from sekron_edge.data._segmentation import SEGMENTATION, SegmentationData, segmentation
from sekron_edge.data._sources import digits, fashion_mnist, load_source
from sekron_edge.data._splits import Splits, data_module, splits
from sekron_edge.data._super_resolution import SUPER_RESOLUTION, SuperResolutionData, super_resolution
from sekron_edge.data._unlabelled import (
    calibration_batch,
    output_agreement,
    output_divergence,
    referenced,
    require_targets,
    require_task,
    training_batch,
    unlabelled,
)

__all__ = [
    "AUDIO",
    "CLASSIFICATION",
    "DENOISING",
    "DETECTION",
    "REGRESSION",
    "SEGMENTATION",
    "SUPER_RESOLUTION",
    "AudioData",
    "AugmentedImages",
    "Boxed",
    "ClassificationData",
    "CropPairs",
    "Crops",
    "DenoisingData",
    "DetectionData",
    "ImageData",
    "LogMel",
    "NoisyCrops",
    "Photographs",
    "Preprocessing",
    "RegressionData",
    "Rows",
    "SegmentationData",
    "Sounds",
    "Splits",
    "SuperResolutionData",
    "batch_of",
    "calibration_batch",
    "classification",
    "collate",
    "data_module",
    "denoising",
    "detection",
    "digits",
    "fashion_mnist",
    "image_folder",
    "keypoints",
    "labelled",
    "load_source",
    "output_agreement",
    "output_divergence",
    "photographs",
    "referenced",
    "regression",
    "require_targets",
    "require_task",
    "segmentation",
    "softened_divergence",
    "splits",
    "super_resolution",
    "training_batch",
    "unlabelled",
]
