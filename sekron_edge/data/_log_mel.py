"""The logarithm of a sound's energy over time and frequency, on the mel scale."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from sekron_edge.errors import ConfigError

MelScale = Literal["htk", "slaney"]


@dataclass(frozen=True)
class LogMel:
    """Settings of a log-mel spectrogram; the defaults are those of torchaudio, with a natural logarithm.

    Attributes:
        rate: Sampling rate in Hz.
        fft: Length of the Fourier transform, in samples.
        window: Length of the Hann window, at most ``fft``.
        hop: Samples from one frame to the next.
        mels: Number of mel bands.
        low_hz, high_hz: Where the bands begin and end; by default 0 and half the rate.
        scale: ``htk``; or ``slaney``, librosa's: linear below 1 kHz, and every band divided by its width.
        centred: Frames are centred on multiples of ``hop``, and sound is reflected at its ends; else the first frame
            begins with the sound.
        floor: Added to energies before the logarithm.

    Raises:
        ConfigError: If a number is out of its range.
    """

    rate: int
    fft: int = 512
    window: int | None = None
    hop: int = 160
    mels: int = 40
    low_hz: float = 0.0
    high_hz: float | None = None
    scale: MelScale = "htk"
    centred: bool = True
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if self.window is not None and self.window > self.fft:
            raise ConfigError(f"window ({self.window}) must be at most fft ({self.fft})")
        if not 0 <= self.low_hz < self._high <= self.rate / 2:
            raise ConfigError(
                f"mel bands must lie between 0 and half the rate, {self.rate / 2:g} Hz; got low_hz {self.low_hz:g} and "
                f"high_hz {self._high:g}"
            )

    @property
    def _high(self) -> float:
        return self.rate / 2 if self.high_hz is None else self.high_hz

    def __call__(self, sound: Tensor) -> Tensor:
        """Return ``(mels, frames)`` of a sound ``(samples,)``.

        Raises:
            ConfigError: If the sound is shorter than a frame.
        """
        # Reflection needs more samples than it adds.
        least = self.fft // 2 + 1 if self.centred else self.fft
        if len(sound) < least:
            raise ConfigError(f"a sound must have at least {least} samples for fft = {self.fft}; got {len(sound)}")
        spectrum = torch.stft(
            sound,
            self.fft,
            self.hop,
            self.window or self.fft,
            torch.hann_window(self.window or self.fft),
            center=self.centred,
            pad_mode="reflect",
            return_complex=True,
        )
        return (self.filters @ spectrum.abs().square() + self.floor).log()

    @cached_property
    def filters(self) -> Tensor:
        """Triangles in frequency, ``(mels, fft // 2 + 1)``."""
        edges = torch.linspace(self._mel(self.low_hz), self._mel(self._high), self.mels + 2, dtype=torch.float64)
        hertz = torch.tensor([self._hertz(float(mel)) for mel in edges], dtype=torch.float64)
        bins = torch.linspace(0, self.rate / 2, self.fft // 2 + 1, dtype=torch.float64)
        low, middle, high = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
        triangles = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clamp(min=0)
        if self.scale == "slaney":
            triangles *= 2 / (high - low)
        return triangles.float()

    def _mel(self, hertz: float) -> float:
        if self.scale == "htk":
            return 2595 * math.log10(1 + hertz / 700)
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    def _hertz(self, mel: float) -> float:
        if self.scale == "htk":
            return float(700 * (10 ** (mel / 2595) - 1))
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)
