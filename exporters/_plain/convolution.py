"""Convolutions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._axes import each_axis

aten = torch.ops.aten


def transposed_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Compute the whole result, with holes in the kernel filled, then cut it: LiteRT takes no other kinds."""
    dims = weight.ndim - 2
    cuts, extra, holes = (each_axis(given, dims) for given in (padding, output_padding, dilation))
    if not any(extra) and max(holes) == 1:
        return NotImplemented
    for axis in range(dims):
        if holes[axis] > 1:
            weight = _spread(weight, 2 + axis, holes[axis])
    convolve = (aten.conv_transpose1d, aten.conv_transpose2d.input, aten.conv_transpose3d.input)[dims - 1]
    beyond = any(more > cut for more, cut in zip(extra, cuts, strict=True))
    whole = convolve(
        x, weight, None if beyond else bias, each_axis(stride, dims), [0] * dims, [0] * dims, groups, [1] * dims
    )
    for axis, (cut, more) in enumerate(zip(cuts, extra, strict=True), start=2):
        length = whole.shape[axis] - 2 * cut + more
        whole = whole.narrow(axis, cut, min(length, whole.shape[axis] - cut))
        if length > whole.shape[axis]:
            ends = [0, 0] * (whole.ndim - 1 - axis) + [0, length - whole.shape[axis]]
            whole = torch.nn.functional.pad(whole, ends)
    if beyond and bias is not None:
        whole = whole + bias.reshape(-1, *[1] * dims)
    return whole


def _spread(weight: Tensor, axis: int, step: int) -> Tensor:
    """Put ``step - 1`` zeros between the values of an axis."""
    size = weight.shape[axis]
    apart = weight.unsqueeze(axis + 1)
    zeros = apart.new_zeros([step - 1 if at == axis + 1 else n for at, n in enumerate(apart.shape)])
    return torch.cat([apart, zeros], axis + 1).flatten(axis, axis + 1).narrow(axis, 0, (size - 1) * step + 1)


def convolution_that_keeps_the_size(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: str = "valid",
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """A convolution with ``padding="same"`` or ``"valid"``, with the padding as a number."""
    dims = weight.ndim - 2
    totals = [hole * (size - 1) for hole, size in zip(each_axis(dilation, dims), weight.shape[2:], strict=True)]
    totals = totals if padding == "same" else [0] * dims
    if any(total % 2 for total in totals):
        ends = [amount for total in reversed(totals) for amount in (total // 2, total - total // 2)]
        x, totals = torch.nn.functional.pad(x, ends), [0] * dims
    convolve = (torch.conv1d, torch.conv2d)[dims - 1]
    cuts = [total // 2 for total in totals]
    return convolve(x, weight, bias, each_axis(stride, dims), cuts, each_axis(dilation, dims), groups)


def convolution_over_three_axes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """A sum of convolutions over two axes, one for each tap of the first axis, which moves into the batch."""
    if isinstance(padding, str):
        kernel = [hole * (size - 1) for hole, size in zip(each_axis(dilation, 3), weight.shape[2:], strict=True)]
        total = kernel if padding == "same" else [0, 0, 0]
        ends = [amount for each in reversed(total) for amount in (each // 2, each - each // 2)]
        x, padding = torch.nn.functional.pad(x, ends), 0
    strides, cuts, holes = (each_axis(given, 3) for given in (stride, padding, dilation))
    if cuts[0]:
        x = torch.nn.functional.pad(x, [0, 0, 0, 0, cuts[0], cuts[0]])
    batch, channels, depth, *image = x.shape
    depth_out = (depth - holes[0] * (weight.shape[2] - 1) - 1) // strides[0] + 1
    total_: Tensor | None = None
    for tap in range(weight.shape[2]):
        last = tap * holes[0] + strides[0] * (depth_out - 1) + 1
        taken = x[:, :, tap * holes[0] : last : strides[0]].transpose(1, 2)
        part = torch.conv2d(
            taken.reshape(batch * depth_out, channels, *image),
            weight[:, :, tap],
            bias if tap == 0 else None,
            strides[1:],
            cuts[1:],
            holes[1:],
            groups,
        )
        total_ = part if total_ is None else total_ + part
    assert total_ is not None
    return total_.reshape(batch, depth_out, *total_.shape[1:]).transpose(1, 2)
