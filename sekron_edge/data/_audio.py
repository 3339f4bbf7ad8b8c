"""The task of naming sounds: keywords, events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import gcd
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.data._classes import Classes
from sekron_edge.data._file_tensors import FileTensors
from sekron_edge.data._files import FileTree
from sekron_edge.data._labelled import labelled
from sekron_edge.data._limits import MOST_FILE_BYTES
from sekron_edge.data._log_mel import LogMel, MelScale
from sekron_edge.data._notes import reading_notes
from sekron_edge.data._recordings import Recordings, recordings
from sekron_edge.data._section import SplitSection
from sekron_edge.data._set_aside import balanced, set_aside
from sekron_edge.data._skipped import skipped
from sekron_edge.data._wav import decode_wav
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Samples, Task
from sekron_edge.task_kinds import ConfigPath, TaskKind

_NAME = "audio"

Layout = Literal["1 mel time", "1 time mel", "mel time", "time mel", "1 time", "time"]


class AudioData(SplitSection):
    """WAV files, who is held out, and what the model sees of a sound.

    Attributes:
        names: What files are called, say ``{label}_{speaker}_{index}`` or ``{speaker}_nohash_{index}``. Without
            ``{label}`` the folder is the label.
        classes: Names of the labels in the order of the model's outputs, or a file with one on each line; by default
            they are in sorted order. Without ``others``, sounds of other labels are left out.
        others: The class of sounds whose label is none of ``classes``.
        heldout_speakers: Speakers to hold out.
        heldout_list: File in ``path`` with the names of the files to hold out, one on each line.
        rate: Sampling rate in Hz; sounds of another are resampled.
        seconds: Length of a sample; sounds are cut, or padded with silence, at both ends alike.
        features: ``log-mel``, or the ``waveform``.
        fft, window, hop, mels, low_hz, high_hz, mel_scale, centred, floor: As in `LogMel`.
        layout: Axes of the model's input, after the batch's; by default ``1 mel time`` or ``1 time``.
        mean, std: Normalisation of what the model sees.
        augment_shift: Largest random shift of training sounds, in seconds.
    """

    names: str = "{name}"
    classes: tuple[str, ...] | ConfigPath | None = None
    others: str | None = None
    heldout_speakers: tuple[str, ...] | None = None
    heldout_list: str | None = None
    rate: int = Field(default=16_000, ge=1)
    seconds: float = Field(default=1.0, gt=0)
    features: Literal["log-mel", "waveform"] = "log-mel"
    fft: int = Field(default=512, ge=2)
    window: int | None = Field(default=None, ge=2)
    hop: int = Field(default=160, ge=1)
    mels: int = Field(default=40, ge=1)
    low_hz: float = Field(default=0.0, ge=0)
    high_hz: float | None = Field(default=None, gt=0)
    mel_scale: MelScale = "htk"
    centred: bool = True
    floor: float = Field(default=1e-6, gt=0)
    layout: Layout | None = None
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    augment_shift: float = Field(default=0.0, ge=0)


class Sounds(Dataset[tuple[Tensor, Tensor]]):
    """Sounds as a model sees them, with their classes; read when they are needed.

    Args:
        waves: float32 ``(samples,)`` each, of one length.
        targets: int64 ``(N,)``.
        log_mel: None: the model sees the waveform.
        layout: Axes of a sample.
        mean: Taken from what the model sees.
        std: What it is then divided by.
        shift: Largest random shift in samples, by torch's global generator; silence comes in.
    """

    def __init__(
        self,
        waves: FileTensors,
        targets: Tensor,
        log_mel: LogMel | None,
        *,
        layout: Layout,
        mean: float = 0.0,
        std: float = 1.0,
        shift: int = 0,
    ) -> None:
        if ("mel" in layout) != (log_mel is not None):
            raise ConfigError(
                f"the layout {layout!r} is not one of {'a waveform' if log_mel is None else 'log-mel features'}"
            )
        if shift and shift >= len(waves[0]):
            raise ConfigError(
                f"augment_shift must be less than a sound's length; got {shift} of {len(waves[0])} samples"
            )
        self._waves, self._targets, self._log_mel, self._layout = waves, targets, log_mel, layout.split()
        self._mean, self._std, self._shift = mean, std, shift

    def __len__(self) -> int:
        return len(self._waves)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return float32 in the layout, and the class."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return several samples, read together."""
        waves = self._waves.several(indices)
        return [(self._seen(wave), self._targets[index]) for index, wave in zip(indices, waves, strict=True)]

    def _seen(self, wave: Tensor) -> Tensor:
        if self._shift:
            offset = int(torch.randint(-self._shift, self._shift + 1, ()))
            wave = F.pad(wave, (offset, -offset))
        seen = wave if self._log_mel is None else self._log_mel(wave)
        if self._layout[-2:] == ["time", "mel"]:
            seen = seen.T
        seen = (seen - self._mean) / self._std
        return (seen[None] if self._layout[0] == "1" else seen).contiguous()


def _wave(rate: int, length: int, content: bytes, name: str) -> Tensor:
    """Return a WAV file's sound, float32 ``(length,)`` at the rate."""
    own, sound = decode_wav(content, name)
    if not len(sound):
        raise DataError(f"{name} has no samples; repair or remove it")
    if own != rate:
        if len(sound) * rate // own * sound.itemsize > MOST_FILE_BYTES:
            raise DataError(f"{name} has {len(sound):,} samples at {own} Hz, which are too many at {rate} Hz: cut it")
        from scipy.signal import resample_poly

        common = gcd(rate, own)
        sound = torch.from_numpy(resample_poly(sound.numpy(), rate // common, own // common)).float()
    missing = length - len(sound)
    return F.pad(sound, (missing // 2, missing - missing // 2))


def _load(section: AudioData, /, *, seed: int, cache: Path) -> Task:  # noqa: ARG001
    tree = FileTree(section.path)
    found = recordings(
        tree,
        section.names,
        train=section.train,
        heldout=section.heldout,
        speakers=section.heldout_speakers,
        listed=section.heldout_list,
        seed=seed,
    )
    classes = _classes(section, found)
    log_mel = None
    if section.features == "log-mel":
        log_mel = LogMel(
            section.rate,
            section.fft,
            section.window,
            section.hop,
            section.mels,
            section.low_hz,
            section.high_hz,
            section.mel_scale,
            section.centred,
            section.floor,
        )
    length = round(section.seconds * section.rate)

    def samples(chosen: Sequence[tuple[str, int]], *, shift: int = 0) -> Samples:
        return Sounds(
            FileTensors(tree, [name for name, _ in chosen], partial(_wave, section.rate, length)),
            torch.tensor([target for _, target in chosen], dtype=torch.int64),
            log_mel,
            layout=section.layout or ("1 time" if log_mel is None else "1 mel time"),
            mean=section.mean,
            std=section.std,
            shift=shift,
        )

    parts = []
    for split in (found.train, found.heldout):
        outputs = [
            (each.name, classes.index.get(each.label, classes.index.get(section.others or ""))) for each in split
        ]
        parts.append([(name, output) for name, output in outputs if output is not None])
    train, heldout = parts
    if not heldout or (found.train and not train):
        raise DataError(f"{section.path} has no {'held-out' if not heldout else 'training'} sounds of {classes.labels}")
    used = {name for name, _ in (*train, *heldout)}
    others = [each.name for each in (*found.train, *found.heldout) if each.name not in used]
    targets = torch.tensor([target for _, target in (train or heldout)])
    if not train:
        count = set_aside(len(heldout), section.calibration_samples, section.path)
        order = balanced(targets, len(targets), seed).tolist()
        train, heldout = [heldout[index] for index in order[:count]], [heldout[index] for index in order[count:]]
        targets = targets[order[:count]]
    chosen = balanced(targets, section.calibration_samples, seed).tolist()
    notes = reading_notes(
        tree,
        "sounds",
        *([name for name, _ in part] for part in (train, heldout)),
        skipped=(*skipped({"of other labels": others}), *found.skipped),
        classes=classes.labels,
        used=[name for name in tree.names if section.heldout_list and name.endswith(section.heldout_list)],
        are_images=False,
        set_aside=not found.train,
    )
    task = labelled(
        samples(train, shift=round(section.augment_shift * section.rate)),
        samples([train[index] for index in chosen]),
        samples(heldout),
        labels=classes.labels,
        name=_NAME,
    )
    return replace(task, notes=notes)


def _classes(section: AudioData, found: Recordings) -> Classes:
    if section.classes is None:
        labels = Classes.in_order(each.label for each in (*found.train, *found.heldout))
    elif isinstance(section.classes, Path):
        labels = Classes.from_file(section.classes)
    else:
        labels = Classes({name: position for position, name in enumerate(section.classes)}, section.classes)
    if section.others is not None and section.others not in labels.index:
        raise ConfigError(
            f"data.others ({section.others!r}) must be one of data.classes, which have an order: {list(labels.index)}"
        )
    return labels


AUDIO = TaskKind(_NAME, AudioData, _load)
