"""WAV files: uncompressed sound, 8 to 32 bits or floating point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sekron_edge.errors import DataError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# Of recorders for ultrasound; filters that resample are as long as rates are high.
_HIGHEST_RATE = 1_000_000


def decode_wav(content: bytes, name: str) -> tuple[int, Tensor]:
    """Return the sampling rate in Hz and the sound, float32 ``(samples,)`` in [-1, 1]; channels are averaged.

    Raises:
        DataError: If the content is no such file, or has samples that are not finite; names it.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise DataError(f"{name} is no WAV file; convert other formats to WAV")
    form = data = None
    position = 12
    while position + 8 <= len(content):
        kind = content[position : position + 4]
        size = int.from_bytes(content[position + 4 : position + 8], "little")
        # Programs that write to a pipe do not know the size: what is there counts.
        chunk = content[position + 8 : position + 8 + size]
        if kind == b"fmt ":
            form = chunk
        elif kind == b"data":
            data = chunk
        position += 8 + size + size % 2
    if form is None or len(form) < 16 or data is None:
        raise DataError(f"{name} is a broken WAV file: it has no format or no data; repair or remove it")
    tag, channels = int.from_bytes(form[:2], "little"), int.from_bytes(form[2:4], "little")
    rate, bits = int.from_bytes(form[4:8], "little"), int.from_bytes(form[14:16], "little")
    if tag == _EXTENSIBLE and len(form) >= 26:
        tag = int.from_bytes(form[24:26], "little")
    if channels < 1 or not 1 <= rate <= _HIGHEST_RATE:
        raise DataError(
            f"{name} is a broken WAV file: {channels} channels at {rate} Hz, of which there may be {_HIGHEST_RATE:,}; "
            "repair or remove it"
        )
    values = _values(data, tag, bits)
    if values is None:
        raise DataError(
            f"{name} is a WAV file of format {tag} with {bits} bits; PCM of 8, 16, 24 or 32 bits and floats of 32 or "
            "64 bits can be read"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{name} has samples that are no finite numbers of 32 bits; repair or remove it")
    whole = len(values) - len(values) % channels
    return rate, torch.from_numpy(values[:whole].reshape(-1, channels).mean(1, dtype=np.float32))


def _values(data: bytes, tag: int, bits: int) -> npt.NDArray[np.float32] | None:
    """Return samples in [-1, 1], None for a format that is not known."""
    if tag not in (_PCM, _FLOAT) or bits not in (8, 16, 24, 32, 64):
        return None
    data = data[: len(data) - len(data) % (bits // 8)]
    if tag == _FLOAT:
        with np.errstate(over="ignore", invalid="ignore"):
            return None if bits < 32 else np.frombuffer(data, f"<f{bits // 8}").astype(np.float32)
    if bits == 8:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if bits == 24:
        # The missing lowest byte makes 32 bits of them.
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, bits = padded.tobytes(), 32
    if bits == 64:
        return None
    return (np.frombuffer(data, f"<i{bits // 8}") / float(1 << (bits - 1))).astype(np.float32)
