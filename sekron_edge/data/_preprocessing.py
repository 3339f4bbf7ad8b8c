"""From a file's bytes to the pixels that a model takes."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from sekron_edge.data._limits import require_pixels
from sekron_edge.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

Interpolation = Literal["nearest", "bilinear", "bicubic"]
Colours = Literal["rgb", "grey"]

# The tag of EXIF, and its values of pictures that lie on a side.
_ORIENTATION, _LYING = 0x0112, {5, 6, 7, 8}
# More than 8 bits a value: Pillow would clip them to 255.
_DEEP_MODES = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


@dataclass(frozen=True)
class Placement:
    """Where an image is after it was resized and cropped.

    Attributes:
        height, width: That it is resized to.
        top, left: Of what is cut out.
        shape: Height and width of what is cut out.
    """

    height: int
    width: int
    top: int
    left: int
    shape: tuple[int, int]


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before its normalisation, in this order.

    Attributes:
        size: Resize to this height and width, whatever its shape was.
        resize: Or: resize so that the shorter side has this many pixels, with the image's own aspect.
        crop: Cut this height and width out of the centre.
        interpolation: Of resizing; bilinear and bicubic are antialiased.
        colours: ``rgb`` has three channels, ``grey`` has one.

    Raises:
        ConfigError: If size and resize are both given, or a number is not positive.
    """

    size: tuple[int, int] | None = None
    resize: int | None = None
    crop: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    colours: Colours = "rgb"

    def __post_init__(self) -> None:
        if self.size is not None and self.resize is not None:
            raise ConfigError(
                f"size ({self.size[0]}x{self.size[1]}) and resize ({self.resize}) exclude each other: size gives "
                "height and width, resize the shorter side"
            )
        if min(*(self.size or (1,)), *(self.crop or (1,)), self.resize or 1, 1) < 1:
            raise ConfigError(f"size, resize and crop must be at least 1 pixel; got {self}")

    @property
    def shape(self) -> tuple[int, int] | None:
        """Height and width of every image; None if they are the image's own."""
        return self.crop or self.size

    def pixels(self, content: bytes, name: str) -> Tensor:
        """Return a file's image as uint8 ``(C, H, W)``.

        Args:
            content: Of the file.
            name: For messages.

        Raises:
            DataError: If it is no image, has more than 8 bits a value, or is smaller than the crop; names it.
        """
        picture = opened(content, name)
        if picture.mode in _DEEP_MODES:
            raise DataError(f"{name} has more than 8 bits a pixel ({picture.mode}); convert it to 8 bits")
        return as_tensor(self.placed(picture.convert("RGB" if self.colours == "rgb" else "L"), name))

    def placed(self, picture: Picture, name: str, interpolation: Interpolation | None = None) -> Picture:
        """Return an image resized and cropped; masks are, without interpolation, by ``nearest``."""
        from PIL import Image

        how = Image.Resampling[(interpolation or self.interpolation).upper()]
        place = self.placement(picture.height, picture.width, name)
        if self.size is not None or self.resize is not None:
            picture = picture.resize((place.width, place.height), how)
        if self.crop is None:
            return picture
        height, width = place.shape
        return picture.crop((place.left, place.top, place.left + width, place.top + height))

    def placement(self, height: int, width: int, name: str) -> Placement:
        """Return where an image of this height and width comes to be.

        Raises:
            DataError: If it is smaller than the crop; names it.
        """
        if self.size is not None:
            height, width = self.size
        elif self.resize is not None:
            short, long = sorted((height, width))
            # Rounded as torchvision does it.
            longer = int(self.resize * long / short)
            height, width = (self.resize, longer) if width >= height else (longer, self.resize)
        shape = self.crop or (height, width)
        if height < shape[0] or width < shape[1]:
            raise DataError(
                f"{name} is {width}x{height}, smaller than the crop {shape[1]}x{shape[0]}; "
                "resize images first: set data.resize, or data.size"
            )
        return Placement(height, width, round((height - shape[0]) / 2.0), round((width - shape[1]) / 2.0), shape)


def opened(content: bytes, name: str) -> Picture:
    """Decode an image in its own mode, upright as its EXIF data says.

    Raises:
        DataError: If it cannot be decoded, or has too many pixels; names it.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is another
            picture = Image.open(BytesIO(content))
        require_pixels(picture.width, picture.height, name)
        picture.load()
        # Cameras store a picture as the sensor lay, and how it is to be turned.
        turned = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} is not a readable image: {error}; repair or remove it") from error
    return turned


def form_of(content: bytes) -> tuple[int, int, str] | None:
    """Return an image's width, height, upright, and mode, as Pillow calls it; None of a file that is no image."""
    try:
        with _header(content, "") as picture:
            height, width = _upright(picture)
            return width, height, picture.mode
    except DataError:
        return None


def size_of(content: bytes, name: str) -> tuple[int, int]:
    """Return an image's height and width, upright; its pixels are not decoded.

    Raises:
        DataError: If it is no image; names it.
    """
    with _header(content, name) as picture:
        return _upright(picture)


@contextmanager
def _header(content: bytes, name: str) -> Iterator[Picture]:
    """Yield an image whose pixels are not decoded."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(BytesIO(content))
        with picture:
            yield picture
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is not a readable image: {error}; repair or remove it") from error


def _upright(picture: Picture) -> tuple[int, int]:
    lies = picture.getexif().get(_ORIENTATION) in _LYING
    return (picture.width, picture.height) if lies else (picture.height, picture.width)


def as_tensor(picture: Picture) -> Tensor:
    """Return an image of 8 bits as uint8 ``(C, H, W)``."""
    pixels = np.array(picture, dtype=np.uint8)
    return torch.from_numpy(pixels if pixels.ndim == 3 else pixels[:, :, None]).permute(2, 0, 1)
