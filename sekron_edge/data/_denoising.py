"""The task of removing noise from images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field, NonNegativeFloat
from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.data._outputs import main_output, of_main_output
from sekron_edge.data._photographs import Crops, Photographs, photographs
from sekron_edge.data._preprocessing import Colours
from sekron_edge.errors import ConfigError
from sekron_edge.task import Task
from sekron_edge.task_kinds import ConfigPath, DataSection, TaskKind

if TYPE_CHECKING:
    import torchmetrics

_NAME = "denoising"

Gives = Literal["image", "noise"]
Sigma = Annotated[
    tuple[NonNegativeFloat, NonNegativeFloat],
    BeforeValidator(lambda given: (given, given) if isinstance(given, int | float) else given),
]


class DenoisingData(DataSection):
    """Photographs, their noise, and what the model gives.

    Attributes:
        path: Folder or zip with photographs in ``train`` and ``test``; by default those of scikit-learn and
            scikit-image.
        train: Folder of the training photographs in it; by default ``train``.
        heldout: Folder of the held-out ones; by default the first of ``test``, ``val`` and the like.
        colours: ``grey`` for one channel, ``rgb`` for three.
        sigma: Standard deviation of the noise, for pixels of 0 to 255; ``[low, high]`` draws one for each image.
        gives: What the model gives: the clean ``image``, or the ``noise`` that is to be taken away.
        size: Height and width of the crops.
        crops: Random crops in an epoch of training.
        calibration_samples: Number of crops of the training photographs for calibration; the same number is held out.
    """

    path: ConfigPath | None = None
    train: str | None = None
    heldout: str | None = None
    colours: Colours = "grey"
    sigma: Sigma = (25.0, 25.0)
    gives: Gives = "image"
    size: int = Field(default=64, ge=1)
    crops: int = Field(default=2048, ge=1)
    calibration_samples: int = Field(default=256, ge=1)


class NoisyCrops(Dataset[tuple[Tensor, Tensor]]):
    """Crops of photographs in [0, 1] with Gaussian noise, not clipped, and what a model is to make of them.

    Args:
        crops: The clean crops.
        sigma: Least and largest standard deviation of the noise, for pixels of 0 to 255.
        gives: The target: the clean image, or the noise.
        seed: Decides the noise of each crop; None: it is drawn from torch's global generator, again at each access.
    """

    def __init__(self, crops: Crops, sigma: tuple[float, float], *, gives: Gives, seed: int | None = None) -> None:
        if not 0 <= sigma[0] <= sigma[1]:
            raise ConfigError(f"sigma must be one number or [low, high], from 0 to 255; got {list(sigma)}")
        self._crops, self._sigma, self._gives, self._seed = crops, sigma, gives, seed

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the noisy crop and the target, float32 ``(C, size, size)`` both."""
        noisy, targets = self.__getitems__([index])
        return noisy[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return a batch of both."""
        clean = self._crops.several(indices).float() / 255
        noise = torch.stack([self._noise(index, clean[0].shape) for index in indices])
        return clean + noise, noise if self._gives == "noise" else clean

    def _noise(self, index: int, shape: torch.Size) -> Tensor:
        generator = None if self._seed is None else torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        low, high = self._sigma
        sigma = low + (high - low) * float(torch.rand((), generator=generator)) if high > low else low
        return torch.randn(shape, generator=generator) * (sigma / 255)


def denoising(
    data: Photographs,
    *,
    sigma: float | tuple[float, float] = 25.0,
    gives: Gives = "image",
    size: int = 64,
    crops: int = 2048,
    calibration_samples: int = 256,
    seed: int = 0,
) -> Task:
    """Make the task of removing Gaussian noise; the metric is the mean peak signal-to-noise ratio in dB.

    Args:
        data: Photographs, each at least ``size`` pixels high and wide.
        sigma: Standard deviation of the noise, for pixels of 0 to 255; a pair draws one for each image.
        gives: What the model gives for a noisy image in [0, 1]: the clean one, or the noise in it.
        size: Height and width of the crops that the model sees.
        crops: Random crops in an epoch of training.
        calibration_samples: Number of crops of the training photographs, on a grid; the same number is held out.
        seed: Decides the noise of calibration and held-out crops.

    Raises:
        ConfigError: If sigma is negative.
        DataError: If a photograph is smaller than a crop.
    """
    spread = sigma if isinstance(sigma, tuple) else (sigma, sigma)

    def fixed(images: Sequence[Tensor], seed: int) -> NoisyCrops:
        return NoisyCrops(Crops(images, calibration_samples, crop=size, random=False), spread, gives=gives, seed=seed)

    return Task(
        name=_NAME,
        train=NoisyCrops(Crops(data.train, crops, crop=size, random=True), spread, gives=gives),
        calibration=fixed(data.train, 2 * seed),
        heldout=fixed(data.heldout, 2 * seed + 1),
        loss=_distance,
        distillation=_distance,
        metric=_psnr,
        metric_name="PSNR",
        metric_unit="dB",
        notes=data.notes,
    )


def _load(section: DenoisingData, /, *, seed: int, cache: Path) -> Task:  # noqa: ARG001
    if section.path is None and (section.train or section.heldout):
        raise ConfigError("data.train and data.heldout name folders in data.path, which is not given")
    return denoising(
        photographs(section.path, train=section.train, heldout=section.heldout, colours=section.colours, seed=seed),
        sigma=section.sigma,
        gives=section.gives,
        size=section.size,
        crops=section.crops,
        calibration_samples=section.calibration_samples,
        seed=seed,
    )


def _distance(outputs: Any, targets: Any) -> Tensor:
    return F.mse_loss(main_output(outputs), main_output(targets))


def _psnr() -> torchmetrics.Metric:
    """Return the mean over images; that of the noise is that of the image, since their errors are the same."""
    from torchmetrics.image import PeakSignalNoiseRatio

    metric = PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3), reduction="elementwise_mean")
    return of_main_output(metric, lambda outputs, targets: (outputs, targets))


DENOISING = TaskKind(_NAME, DenoisingData, _load)
