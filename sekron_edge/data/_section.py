"""Keys of ``[data]`` that several kinds of tasks share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PositiveInt

from sekron_edge.data._preprocessing import Colours, Interpolation, Preprocessing
from sekron_edge.errors import ConfigError
from sekron_edge.task import Normalization
from sekron_edge.task_kinds import ConfigPath, DataSection


def _both(given: Any) -> Any:
    return (given, given) if isinstance(given, int) else given


Size = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_both)]
"""Height and width in pixels; one number stands for both."""


class SplitSection(DataSection):
    """Where samples are, and how they are split.

    Attributes:
        path: Folder or zip of the data.
        train: Folder of the training samples in it; by default ``train`` or ``training``. Without training samples,
            some held-out ones are set aside for calibration.
        heldout: Folder of the held-out samples; by default the first of ``test``, ``testing``, ``val``, ``valid`` and
            ``validation``.
        calibration_samples: Number of training samples for calibration.
    """

    path: ConfigPath
    train: str | None = None
    heldout: str | None = None
    calibration_samples: int = Field(default=512, ge=1)


class PixelSection(DataSection):
    """How images become a model's input.

    Attributes:
        size: Images are resized to this height and width.
        resize: Or: they are resized so that the shorter side has this many pixels.
        crop: Height and width that are cut out of the centre.
        interpolation: Of resizing; bilinear and bicubic are antialiased.
        colours: ``rgb``, or ``grey`` for one channel.
        mean, std: Normalisation of pixels in [0, 1], one value per channel.
    """

    size: Size | None = None
    resize: int | None = Field(default=None, ge=1)
    crop: Size | None = None
    interpolation: Interpolation = "bilinear"
    colours: Colours = "rgb"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def preprocessing(self) -> Preprocessing:
        """Return what is done before normalisation.

        Raises:
            ConfigError: If keys exclude each other.
        """
        return Preprocessing(self.size, self.resize, self.crop, self.interpolation, self.colours)

    def normalization(self) -> Normalization | None:
        """Return the normalisation, None if it is not given.

        Raises:
            ConfigError: If only one of its two parts is.
        """
        if self.mean is not None and self.std is not None:
            return Normalization(self.mean, self.std)
        if self.mean is None and self.std is None:
            return None
        raise ConfigError("data.mean and data.std belong together: give both, or neither")
