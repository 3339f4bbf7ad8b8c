"""Noise like real inputs, for checks of an artifact beyond the samples at hand."""

from __future__ import annotations

import torch
from torch import Tensor

_VECTORS = 2  # axes of a batch of vectors


def noise_like(real: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise like real inputs, within their range: int8 has no values beyond it.

    Vectors become noise of their mean and spread. Images, sounds and the like keep their spectra and lose their phases
    (surrogates as of Theiler et al. 1992): white noise is rougher than anything real, and leaves the ranges that int8
    was calibrated for in the first layer.

    Integers mean something each, as the number of a word, and so do infinite values in a mask: such inputs are the
    samples in another order.
    """
    if not real.is_floating_point() or not torch.isfinite(real).all():
        return real[torch.randperm(len(real), generator=generator)]
    if real.ndim > _VECTORS:
        noise = of_other_phases(real, generator)
    else:
        noise = torch.randn(real.shape, generator=generator) * real.std(correction=0) + real.mean()
    return noise.clamp(real.min(), real.max())


def of_other_phases(real: Tensor, generator: torch.Generator) -> Tensor:
    """Shift the phases of samples ``(batch, channels, *axes)``, alike in all channels; means stay."""
    axes, sizes = tuple(range(2, real.ndim)), real.shape[2:]
    white = torch.randn(len(real), 1, *sizes, generator=generator, dtype=real.dtype)
    shifts = torch.fft.rfftn(white, dim=axes)
    turned = shifts / shifts.abs().clamp_min(torch.finfo(real.dtype).tiny)
    turned[(..., *(0 for _ in sizes))] = 1
    noise: Tensor = torch.fft.irfftn(torch.fft.rfftn(real, dim=axes) * turned, s=sizes, dim=axes)
    return noise
