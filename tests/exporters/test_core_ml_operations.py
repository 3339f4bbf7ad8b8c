"""Every operation of Core ML's reference evaluator computes what MIL defines, and refuses what MIL leaves open.

Expected values come from coremltools' NumPy functions, which fold constants, where an operation has one. Others are
worked out by hand from MIL's definition, or were published: in Core ML's specification, in the tests that coremltools
passes with Core ML, or in reports. None come from PyTorch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sekron_edge as se
from sekron_edge.artifacts import Array, Artifact, get_exporter, predict
from sekron_edge.errors import NotRunnableError
from sekron_edge.exporters.coreml.evaluator._operations import OPERATIONS, OpenError
from sekron_edge.exporters.coreml.evaluator._program import Program, _main, _read_model, _rounded

_PUBLISHED = np.arange(49, dtype=np.float32).reshape(1, 1, 7, 7)  # the input of coremltools' pull request 2844
_NATIVE = ("float32", "float16", "int32")


def _f(*values: float, shape: Sequence[int] = (-1,)) -> Array:
    return np.array(values, np.float32).reshape(shape)


def _i(*values: int) -> Array:
    return np.array(values, np.int32)


def _line(*values: float) -> Array:
    """One sample of one channel along one axis."""
    return _f(*values, shape=(1, 1, -1))


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        operation: MIL's name.
        inputs: Tensors that the program takes; None of them are constants.
        constants: The other arguments.
        expected: Its outputs; empty where coremltools' NumPy function says them.
    """

    operation: str
    inputs: dict[str, Any]
    constants: dict[str, Any] = field(default_factory=dict)
    expected: tuple[Any, ...] = ()


def _numpy(operation: str, x: Array, **constants: Any) -> Case:
    """A case that coremltools computes itself."""
    return Case(operation, {"x": x}, constants)


def _by_hand(operation: str, x: Array, expected: Any, **constants: Any) -> Case:
    return Case(operation, {"x": x}, constants, (expected,))


_FRACTIONS = np.random.default_rng(0).uniform(0.1, 0.9, (1, 4, 2, 3)).astype(np.float32)
_SIGNED = np.random.default_rng(1).uniform(-2, 2, (1, 4, 2, 3)).astype(np.float32)
_HALVES = _f(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, -1.2, 1.2)
_SIGNS = _i(-7, -6, -1, 0, 1, 6, 7)
_TRUTH = np.array([[True, False], [True, True]])
_OTHER = np.array([[False, False], [True, False]])
_PAIRS = [(_f(-7, -2.5, 0, 2.5, 7), _f(2, -2, 3, 2, -2)), (_SIGNS, _i(2, -4, 3, 5, -2, 4, -3))]
_FOUR = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

ELEMENTWISE = [
    *(_numpy(name, _FRACTIONS) for name in ("acos", "asin", "atan", "atanh", "cos", "cosh", "erf", "exp", "exp2")),
    *(_numpy(name, _SIGNED) for name in ("abs", "relu", "relu6", "sigmoid", "sign", "sin", "sinh", "softplus")),
    *(_numpy(name, _SIGNED) for name in ("softsign", "square", "tan", "tanh", "identity", "shape")),
    *(_numpy(name, _HALVES) for name in ("ceil", "floor", "round")),
    _numpy("sqrt", _FRACTIONS),
    _numpy("logical_not", _TRUTH),
    _by_hand("silu", _f(0, np.log(3), -np.log(3)), _f(0, 0.75 * np.log(3), -0.25 * np.log(3))),
    *(
        Case(name, {"x": x, "y": y})
        for name in ("add", "sub", "mul", "mod", "floor_div", "maximum", "minimum")
        for x, y in _PAIRS
    ),
    *(
        Case(name, {"x": x, "y": np.roll(x, 1)})
        for name in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
        for x in (_f(1, 1, 2, -3), _SIGNS)
    ),
    *(Case(name, {"x": _TRUTH, "y": _OTHER}) for name in ("logical_and", "logical_or", "logical_xor")),
    Case("real_div", {"x": _f(1, -2, 7), "y": _f(4, 3, -2)}),
    Case("pow", {"x": _f(2, 3, 0.5, -2), "y": _f(3, 0.5, -1, 2)}),
    Case("add", {"x": _FOUR, "y": _f(1, 2, 3, 4)}),
    _numpy("log", _FRACTIONS),
    _numpy("log", _FRACTIONS, epsilon=0.5),
    _numpy("inverse", _FRACTIONS),
    _numpy("inverse", _FRACTIONS, epsilon=0.5),
    _numpy("rsqrt", _FRACTIONS),
    _numpy("rsqrt", _FRACTIONS, epsilon=0.5),
    _numpy("clip", _SIGNED, alpha=-0.5, beta=1.0),
    _numpy("threshold", _SIGNED, alpha=0.4),
    # Towards zero, not down.
    _numpy("cast", _HALVES, dtype="int32"),
    _numpy("cast", _HALVES, dtype="bool"),
    _numpy("cast", _SIGNS, dtype="fp32"),
    _numpy("cast", _f(1 / 3, 1e5, 1e-8, -2049), dtype="fp16"),
    Case("select", {"cond": _TRUTH, "a": _f(1, 2, 3, 4, shape=(2, 2)), "b": _f(5, 6, 7, 8, shape=(2, 2))}),
]
ACTIVATIONS = [
    _numpy("leaky_relu", _SIGNED, alpha=0.2),
    _numpy("elu", _SIGNED, alpha=0.7),
    _numpy("prelu", _SIGNED, alpha=_f(0.1, 0.2, 0.3, 0.4)),
    _numpy("gelu", _SIGNED),
    _numpy("gelu", _SIGNED, mode="TANH_APPROXIMATION"),
    _numpy("gelu", _SIGNED, mode="SIGMOID_APPROXIMATION"),
    _numpy("sigmoid_hard", _SIGNED, alpha=0.4, beta=0.5),
    _numpy("clamped_relu", _SIGNED, alpha=0.1, beta=0.5),
    _numpy("linear_activation", _SIGNED, alpha=2.0, beta=0.5),
    _numpy("scaled_tanh", _SIGNED, alpha=2.0, beta=0.5),
    _numpy("softplus_parametric", _SIGNED, alpha=_f(1, 2, 3, 4), beta=_f(0.1, 1, 2, -1)),
    _numpy("thresholded_relu", _SIGNED, alpha=0.4),
    _numpy("softmax", _SIGNED),
    _numpy("softmax", _SIGNED, axis=1),
]
REDUCTIONS = [
    *(
        _numpy(f"reduce_{name}", _FRACTIONS, **given)
        for name in ("l1_norm", "l2_norm", "log_sum", "log_sum_exp", "max", "mean", "min", "prod", "sum", "sum_square")
        for given in ({}, {"axes": [1, -1], "keep_dims": True}, {"axes": [-2]})
    ),
    _numpy("reduce_sum", _SIGNS, axes=[0]),
    *(
        _numpy(name, _SIGNED, **given)
        for name in ("reduce_argmax", "reduce_argmin")
        for given in ({}, {"axis": 1, "keep_dims": True})
    ),
    _numpy("argsort", _SIGNED, axis=1),
    _numpy("argsort", _SIGNED, axis=-1, ascending=True),
    _numpy("topk", _SIGNED, k=2, axis=1),
    _numpy("topk", _SIGNED, k=2, axis=-1, ascending=True),
    Case("topk", {"x": _f(3, 1, 2)}, {"k": 2, "axis": 0, "return_indices": False}, (_f(3, 2),)),
    _numpy("cumsum", _FOUR, axis=1),
    _numpy("cumsum", _FOUR, axis=-1, reverse=True),
    _by_hand("cumsum", _f(1, 2, 3), _f(0, 1, 3), axis=0, exclusive=True),
    _by_hand("cumsum", _f(1, 2, 3), _f(5, 3, 0), axis=0, exclusive=True, reverse=True),
    _numpy("band_part", _FOUR, lower=1, upper=0),
    _numpy("band_part", _FOUR, lower=-1, upper=1),
]
SHAPES = [
    Case("fill", {"shape": _i(2, 3)}, {"value": 1.5}),
    Case("fill_like", {"ref_tensor": _FOUR}, {"value": 2.0}),
    Case("range_1d", {"start": np.int32(2), "end": np.int32(11), "step": np.int32(3)}),
    Case("range_1d", {"start": np.float32(1), "end": np.float32(-1), "step": np.float32(-0.5)}),
    # coremltools has no function of its own here.
    Case("one_hot", {"indices": _i(2, 0)}, {"one_hot_vector_size": 3}, (np.array([[0, 0, 1], [1, 0, 0]]),)),
    Case(
        "one_hot", {"indices": _i(2, 0)}, {"one_hot_vector_size": 3, "axis": 0, "on_value": 5.0, "off_value": -1.0},
        (_f(-1, 5, -1, -1, 5, -1, shape=(3, 2)),),
    ),
    _numpy("reshape", _FOUR, shape=[0, 2, -1]),
    # Documented for iOS 17: zeros count from the last axis.
    _by_hand("reshape", _f(*range(6), shape=(2, 3)), _f(*range(6), shape=(1, 1, 2, 3)), shape=[1, 0, -1, 0]),
    _by_hand("reshape", _f(*range(6), shape=(2, 1, 3)), _f(*range(6), shape=(2, 3)), shape=[-1, 0]),
    _numpy("flatten2d", _FOUR),
    _numpy("flatten2d", _FOUR, axis=-1),
    _numpy("transpose", _FOUR, perm=[2, 0, -2]),
    _numpy("expand_dims", _FOUR, axes=[0, -1]),
    _numpy("expand_dims", _FOUR, axes=[-1, -2]),
    _numpy("squeeze", _SIGNED),
    _numpy("squeeze", _SIGNED[:, :1], axes=[-3]),
    Case("concat", {"values": (_FOUR, -_FOUR)}, {"axis": -1}),
    Case("concat", {"values": (_f(1, 2), _f(3, 4))}, {"axis": 0, "interleave": True}, (_f(1, 3, 2, 4),)),
    Case("stack", {"values": (_FOUR, -_FOUR)}, {"axis": 1}),
    Case("stack", {"values": (_FOUR, -_FOUR)}, {"axis": -1}),
    _numpy("split", _FOUR, axis=-1, num_splits=2),
    _numpy("split", _FOUR, axis=1, split_sizes=[1, 2]),
    _numpy("tile", _FOUR, reps=[1, 2, 3]),
    _numpy("reverse", _FOUR),
    _numpy("reverse", _FOUR, axes=[-1]),
    *(
        _numpy("slice_by_index", _FOUR, **given)
        for given in (
            {"begin": [0, -2, 1], "end": [1, -1, 0], "end_mask": [False, False, True]},
            {"begin": [0, 0, -1], "end": [2, 3, 0], "stride": [1, 2, -2]},
            {"begin": [0, 2, -1], "end": [0, 0, -4], "stride": [1, -1, -2], "end_mask": [True, True, False]},
            {"begin": [1, 0, 0], "end": [0, 3, 4], "squeeze_mask": [True, False, False]},
            {"begin": [0, 0, 3], "end": [2, 0, 3], "begin_mask": [False, False, True], "stride": [1, 1, 1],
             "end_mask": [False, True, False]},
        )
    ),
    _numpy("slice_by_size", _FOUR, begin=[0, -2, 1], size=[1, 2, -1]),
    _by_hand("crop", _FOUR, _FOUR[:, 1:, 0:3], crop_height=[1, 0], crop_width=[0, 1]),
    *(_numpy("gather", _FOUR, indices=_i(2, 0), axis=axis) for axis in (1, -1)),
    _numpy("gather", _FOUR, indices=np.array([[1, 0], [2, 2]], np.int32), axis=1, batch_dims=1),
    _numpy("gather_along_axis", _FOUR, indices=np.array([[[0, 2, 1, 0]], [[2, 0, 0, 1]]], np.int32), axis=1),
    _numpy("pad", _FOUR, pad=[2, 1, 3, 0], mode="reflect"),
    _numpy("pad", _FOUR, pad=[1, 3, 2, 4], mode="replicate"),
    _numpy("pad", _FOUR, pad=[1, 0, 0, 2, 1, 1], mode="constant", constant_val=3.0),
    _numpy("pad", _FOUR, pad=[0, 0, 1, 0, 2, 1], mode="reflect"),
]  # fmt: skip
PRODUCTS = [
    Case("matmul", {"x": _FOUR, "y": _FOUR}, {"transpose_y": True}),
    Case("matmul", {"x": _FOUR, "y": _FOUR[:1]}, {"transpose_x": True}),
    _numpy("linear", _FOUR, weight=_FOUR[0], bias=_f(1, 2, 3)),
    Case(
        "einsum", {"values": (_f(1, 2, shape=(1, 1, 1, 2)), _f(3, 4, 5, 6, shape=(1, 2, 1, 2)))},
        {"equation": "nchw,nwhu->nchu"}, (_f(13, 16, shape=(1, 1, 1, 2)),),
    ),
    Case(
        "einsum", {"values": (_f(1, 2, shape=(1, 1, 2)), _f(3, 4, 5, 6, shape=(2, 1, 2)))},
        {"equation": "chw,whr->chr"}, (_f(13, 16, shape=(1, 1, 2)),),
    ),
]  # fmt: skip
_TAPS = _f(1, 10, 100, shape=(1, 1, 3))
CONVOLUTIONS = [
    _by_hand("conv", _line(1, 2, 3, 4), _line(321, 432), weight=_TAPS, pad_type="valid"),
    # Core ML's specification: half of the padding is before, an odd one more behind, or before with same_lower.
    _by_hand("conv", _line(1, 2, 3, 4), _line(210, 321, 432, 43), weight=_TAPS, pad_type="same"),
    _by_hand("conv", _line(1, 2, 3, 4), _line(321, 43), weight=_TAPS, pad_type="same", strides=[2]),
    _by_hand("conv", _line(1, 2, 3, 4), _line(210, 432), weight=_TAPS, pad_type="same_lower", strides=[2]),
    _by_hand("conv", _line(1, 2, 3, 4), _line(21, 32, 43, 4), weight=_TAPS[..., :2], pad_type="same"),
    _by_hand("conv", _line(1, 2, 3, 4), _line(10, 21, 32, 43), weight=_TAPS[..., :2], pad_type="same_lower"),
    _by_hand(
        "conv", _line(1, 2, 3, 4), _line(105, 215, 326, 437), weight=_TAPS, bias=_f(5), pad_type="custom", pad=[2, 0]
    ),
    _by_hand("conv", _line(1, 2, 3, 4), _line(31, 42), weight=_TAPS[..., :2], pad_type="valid", dilations=[2]),
    _by_hand(
        "conv", _f(1, 2, 3, 4, shape=(1, 2, 2)), _f(2, 4, 9, 12, shape=(1, 2, 2)), weight=_f(2, 3, shape=(2, 1, 1)),
        pad_type="valid", groups=2,
    ),
    # A correlation over two axes: the kernel is not turned.
    _by_hand(
        "conv", _f(1, 2, 3, 4, shape=(1, 1, 2, 2)), _f(4321, shape=(1, 1, 1, 1)),
        weight=_f(1, 10, 100, 1000, shape=(1, 1, 2, 2)), pad_type="valid",
    ),
    _by_hand("conv_transpose", _line(1, 2), _line(1, 10, 102, 20, 200), weight=_TAPS, strides=[2]),
    _by_hand("conv_transpose", _line(1, 2), _line(1, 10, 102, 20), weight=_TAPS, strides=[2], pad_type="same"),
    _by_hand(
        "conv_transpose", _line(1, 2), _line(15, 107, 25), weight=_TAPS, strides=[2], pad_type="custom", pad=[1, 1],
        bias=_f(5), output_shape=[1, 1, 3],
    ),
    _by_hand("conv_transpose", _line(1, 2), _line(1, 2, 10, 20), weight=_TAPS[..., :2], dilations=[2]),
    _by_hand(
        "conv_transpose", _f(1, 2, shape=(1, 2, 1)), _f(3, 4, 10, 12, shape=(1, 4, 1)),
        weight=_f(3, 4, 5, 6, shape=(2, 2, 1)), groups=2,
    ),
]  # fmt: skip
POOLS = [
    # coremltools' pull request 2844 has these of Core ML: what ceil_mode adds counts.
    _by_hand(
        "avg_pool", _PUBLISHED, _f(4, 7, 4.75, 25, 28, 15.25, 21.25, 22.75, 12, shape=(1, 1, 3, 3)),
        kernel_sizes=[2, 2], strides=[3, 3], pad_type="valid", ceil_mode=True,
    ),
    _by_hand(
        "avg_pool", _line(*range(7)), _line(0.5, 3.5, 3), kernel_sizes=[2], strides=[3], pad_type="valid",
        ceil_mode=True,
    ),
    _by_hand(
        "avg_pool", _line(*range(7)), _line(0.5, 3.5, 6), kernel_sizes=[2], strides=[3], pad_type="valid",
        ceil_mode=True, exclude_padding_from_average=True,
    ),
    _by_hand("avg_pool", _line(2, 4, 6), _line(1, 3, 5, 3), kernel_sizes=[2], pad_type="custom", pad=[1, 1]),
    _by_hand(
        "avg_pool", _line(2, 4, 6), _line(2, 3, 5, 6), kernel_sizes=[2], pad_type="custom", pad=[1, 1],
        exclude_padding_from_average=True,
    ),
    _by_hand("avg_pool", _line(2, 4, 6), _line(3, 3), kernel_sizes=[2], strides=[2], pad_type="same"),
    # The windows of coremltools' own tests with Core ML.
    *(
        _by_hand(
            name, _f(1, 2, 3, 4, shape=(1, 1, 2, 2)), _f(*expected, shape=(1, 1, 2, 2)), kernel_sizes=[2, 2],
            strides=[1, 1], pad_type="same_lower",
        )
        for name, expected in (
            ("avg_pool", (0.25, 0.75, 1, 2.5)), ("max_pool", (1, 2, 3, 4)), ("l2_pool", (1, 5**0.5, 10**0.5, 30**0.5))
        )
    ),
    _by_hand(
        "max_pool", _line(-4, -3, -2, -1), _line(-4, -2, -1), kernel_sizes=[2], strides=[2], pad_type="custom",
        pad=[1, 1],
    ),
    # With padding, a window that would begin behind the input is dropped.
    _by_hand(
        "max_pool", _line(-4, -3, -2), _line(-4, -2), kernel_sizes=[2], strides=[2], pad_type="custom", pad=[1, 1],
        ceil_mode=True,
    ),
    _by_hand(
        "max_pool", _line(*range(5)), _line(1, 3, 4), kernel_sizes=[2], strides=[2], pad_type="valid", ceil_mode=True
    ),
    _by_hand("l2_pool", _line(3, 4, 5), _line(5, 5), kernel_sizes=[2], strides=[2], pad_type="valid", ceil_mode=True),
]  # fmt: skip
NORMS = [
    _by_hand(
        "batch_norm", _f(3, 5, shape=(1, 2, 1)), _f(12, 23, shape=(1, 2, 1)), mean=_f(1, 1), variance=_f(3, 15),
        gamma=_f(2, 3), beta=_f(10, 20), epsilon=1.0,
    ),
    _by_hand("batch_norm", _line(3), _line(2e3 / 20**0.5), mean=_f(1), variance=_f(1e-5)),
    _by_hand("instance_norm", _line(1, 3), _line(0, 2), gamma=_f(2), beta=_f(1), epsilon=3.0),
    _numpy("layer_norm", _FOUR, axes=[1, -1], gamma=_FOUR[0], beta=_FOUR[1], epsilon=0.5),
    _numpy("layer_norm", _FRACTIONS * 1e-3, axes=[-1]),
    _numpy("l2_norm", _SIGNED),
    _numpy("l2_norm", _FOUR, epsilon=5.0),
    # Sums of squares of neighbours: 1 + 25, 1 + 25 + 9, 25 + 9.
    _by_hand(
        "local_response_norm", _f(1, 5, -3, shape=(1, 3, 1, 1)), _f(1 / 27, 5 / 36, -3 / 35, shape=(1, 3, 1, 1)),
        size=3, alpha=3.0, beta=1.0, k=1.0,
    ),
]  # fmt: skip
_EIGHT = np.arange(1, 17, dtype=np.float32).reshape(1, 8, 1, 2)
# Core ML's specification prints these of the numbers 1 to 16.
_BLOCKS = _f(1, 5, 2, 6, 9, 13, 10, 14, 3, 7, 4, 8, 11, 15, 12, 16, shape=(1, 2, 2, 4))
_SHUFFLED = _f(1, 3, 2, 4, 5, 7, 6, 8, 9, 11, 10, 12, 13, 15, 14, 16, shape=(1, 2, 2, 4))
_STEP = _f(0, 1, shape=(1, 1, 1, 2))
# The grid points that MIL's documentation lists for five points of [0, 1].
_GRIDS = {
    "UNALIGN_CORNERS": (0, 0.1, 0.5, 0.9, 1),
    "STRICT_ALIGN_CORNERS": (0, 0.25, 0.5, 0.75, 1),
    "ALIGN_CORNERS": (0, 0.25, 0.5, 0.75, 1),
    "DEFAULT": (0, 0.4, 0.8, 1, 1),
    "OFFSET_CORNERS": (0.1, 0.3, 0.5, 0.7, 0.9),
}
_THIRDS = (0, 0, 1 / 3, 2 / 3, 1, 1)
IMAGES = [
    _by_hand("depth_to_space", _EIGHT, _BLOCKS, block_size=2),
    _by_hand("space_to_depth", _BLOCKS, _EIGHT, block_size=2),
    _by_hand("pixel_shuffle", _EIGHT, _SHUFFLED, upscale_factor=2),
    _by_hand("pixel_unshuffle", _SHUFFLED, _EIGHT, downscale_factor=np.uint32(2)),
    *(
        _by_hand(
            "resize_bilinear", _STEP, _f(*points, shape=(1, 1, 1, 5)), target_size_height=1, target_size_width=5,
            sampling_mode=mode,
        )
        for mode, points in _GRIDS.items()
    ),
    *(
        _by_hand(
            "resize", _STEP, _f(*points, shape=(1, 1, 1, 5)), shape=[5], resized_dims=np.uint32(1), sampling_mode=mode
        )
        for mode, points in _GRIDS.items()
    ),
    _by_hand(
        "resize_bilinear", _STEP, _f(0.5, shape=(1, 1, 1, 1)), target_size_height=1, target_size_width=1,
        sampling_mode="ALIGN_CORNERS",
    ),
    _by_hand(
        "resize_bilinear", _STEP, _f(0, shape=(1, 1, 1, 1)), target_size_height=1, target_size_width=1,
        sampling_mode="STRICT_ALIGN_CORNERS",
    ),
    _by_hand(
        "upsample_bilinear", _STEP, _f(*_THIRDS, shape=(1, 1, 1, 6)), scale_factor_height=1, scale_factor_width=3,
        align_corners=False,
    ),
    _by_hand(
        "upsample_bilinear", _STEP, _f(0, 0.2, 0.4, 0.6, 0.8, 1, shape=(1, 1, 1, 6)), scale_factor_height=1.0,
        scale_factor_width=3.0, align_corners=True,
    ),
    _by_hand(
        "upsample_bilinear", _STEP, _f(0, 1 / 3, 2 / 3, 1, 1, 1, shape=(1, 1, 1, 6)), scale_factor_height=1,
        scale_factor_width=3, align_corners=False, half_pixel_centers=False,
    ),
    _by_hand(
        "upsample_nearest_neighbor", _STEP, _f(0, 0, 1, 1, 0, 0, 1, 1, shape=(1, 1, 2, 4)), scale_factor_height=2,
        scale_factor_width=2,
    ),
    _by_hand(
        "upsample_nearest_neighbor", _f(0, 1, 2, 3, shape=(1, 1, 1, 4)), _f(0, 0, 1, 2, 2, 3, shape=(1, 1, 1, 6)),
        scale_factor_height=1.0, scale_factor_width=1.5,
    ),
    # coremltools' own test with Core ML.
    _by_hand(
        "resize_nearest_neighbor", _f(0.37, 6.17, shape=(1, 1, 2, 1)),
        _f(0.37, 0.37, 0.37, 6.17, 6.17, 6.17, shape=(1, 1, 2, 3)), target_size_height=2, target_size_width=3,
    ),
    _by_hand(
        "resize_nearest_neighbor", _STEP, _f(0, 0, 0, 1, 1, 1, shape=(1, 1, 1, 6)),
        target_size_height=1, target_size_width=6,
    ),
    _by_hand(
        "resize", _f(0, 1, shape=(1, 1, 2, 1)), _f(0, 0, 0, 1, 1, 1, shape=(1, 1, 2, 3)), shape=[0, 3],
        resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR",
    ),
]  # fmt: skip
INTEGERS = [
    Case(
        "quantize", {"input": _f(-20, -0.25, 0.25, 0.75, 20)},
        {"scale": np.float32(0.1), "output_dtype": "int8", "zero_point": np.int8(3)},
    ),
    Case(
        "quantize", {"input": _f(-1, 0.5, 1, 2, shape=(2, 2))},
        {"scale": _f(0.5, 0.01), "axis": 0, "output_dtype": "uint8"},
    ),
    Case(
        "dequantize", {"input": np.array([[-128, 127], [3, 4]], np.int8)},
        {"scale": _f(0.5, 2), "zero_point": np.array([2, 3], np.int8), "axis": 0}, (_f(-65, 62.5, 0, 2, shape=(2, 2)),),
    ),
]  # fmt: skip
CASES = [
    *ELEMENTWISE, *ACTIVATIONS, *REDUCTIONS, *SHAPES, *PRODUCTS, *CONVOLUTIONS, *POOLS, *NORMS, *IMAGES, *INTEGERS
]  # fmt: skip
# Weights are decompressed by coremltools too: test_coreml.py compares the two.
_OF_WEIGHTS = {name for name in OPERATIONS if name.startswith("constexpr_")}


def _names(cases: Sequence[Case]) -> list[str]:
    ordered = groupby(case.operation for case in cases)
    return [f"{name}-{place}" for name, group in ordered for place, _ in enumerate(group)]


def _by_coremltools(case: Case) -> tuple[Any, ...]:
    """Return what coremltools' NumPy function makes of constants."""
    from coremltools.converters.mil.mil import Builder as mb

    copies = {
        name: tuple(map(np.copy, value)) if isinstance(value, tuple) else np.copy(value)[()]
        for name, value in case.inputs.items()
    }
    outputs = getattr(mb, case.operation)(**copies, **case.constants)
    return tuple(output.val for output in (outputs if isinstance(outputs, list | tuple) else (outputs,)))


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[tuple[Any, ...], tuple[Array, ...]]]:
    """What each case's outputs should be and what the evaluator makes of them, all in one package."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import Function, types
    from coremltools.converters.mil.mil import Program as Mil

    tensors: list[Array] = []
    wanted: list[tuple[Any, ...]] = []
    counts: list[int] = []

    def shown(value: Any) -> tuple[Array, ...]:
        return value if isinstance(value, tuple) else (value,)

    for case in CASES:
        tensors += [np.asarray(one) for value in case.inputs.values() for one in shown(value)]
    placeholders = {
        f"x{place}": mb.placeholder(
            shape=tensor.shape or (1,), dtype=types.fp32 if tensor.dtype == np.float32 else types.int32
        )
        for place, tensor in enumerate(tensors)
    }
    with Function(placeholders, opset_version=ct.target.iOS17) as function:
        given = iter(zip(tensors, function.inputs.values(), strict=True))

        def taken() -> Any:
            tensor, variable = next(given)
            variable = variable if tensor.shape else mb.squeeze(x=variable)
            return variable if tensor.dtype.name in _NATIVE else mb.cast(x=variable, dtype=tensor.dtype.name)

        outputs: list[Any] = []
        for case in CASES:
            arguments = {
                name: tuple(taken() for _ in value) if isinstance(value, tuple) else taken()
                for name, value in case.inputs.items()
            }
            made = getattr(mb, case.operation)(**arguments, **case.constants)
            made = list(made) if isinstance(made, list | tuple) else [made]
            outputs += made
            counts.append(len(made))
        function.set_outputs(outputs)
    with Function({"x": mb.placeholder(shape=(1,))}, opset_version=ct.target.iOS17):
        wanted = [case.expected or _by_coremltools(case) for case in CASES]
    program = Mil()
    program.add_function("main", function)
    # Without passes: an operation shall be evaluated as it was written.
    model = ct.convert(
        program, source="milinternal", convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32, skip_model_load=True, pass_pipeline=ct.PassPipeline.EMPTY,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("operations") / "operations.mlpackage"
    model.save(str(path))
    found = iter(Program(path).run([np.atleast_1d(tensor) for tensor in tensors]))
    return [
        (expected, tuple(next(found) for _ in range(count))) for expected, count in zip(wanted, counts, strict=True)
    ]


@pytest.mark.parametrize("place", range(len(CASES)), ids=_names(CASES))
def test_an_operation_computes_what_mil_defines(
    place: int, computed: list[tuple[tuple[Any, ...], tuple[Array, ...]]]
) -> None:
    wanted, found = computed[place]
    assert all(value is not None for value in wanted), "coremltools has no function of its own: expected is needed"
    assert len(found) == len(wanted)
    for actual, expected in zip(found, wanted, strict=True):
        assert actual.shape == np.shape(expected)
        np.testing.assert_allclose(
            actual.astype(np.float64), np.asarray(expected).astype(np.float64), rtol=1e-5, atol=1e-6
        )


def test_every_operation_has_a_case() -> None:
    assert {case.operation for case in CASES} | _OF_WEIGHTS == set(OPERATIONS)


_IMAGE = torch.arange(16.0).reshape(1, 1, 4, 4)
_SEQUENCE = torch.arange(5.0).reshape(1, 1, 5)
_WHOLE = torch.arange(6)


def _t(*values: float) -> Tensor:
    return torch.tensor(values)


# What MIL leaves open, or what Core ML is reported to get wrong.
OPEN: list[tuple[str, dict[str, Any], str]] = [
    # A window of ceil_mode wholly beyond the input, which PyTorch drops.
    (
        "avg_pool", {"x": _SEQUENCE, "kernel_sizes": _t(1), "pad_type": "valid", "strides": _t(3), "ceil_mode": True},
        "beyond",
    ),
    ("max_pool", {"x": _SEQUENCE, "kernel_sizes": _t(2), "pad_type": "same_lower"}, "one spatial axis"),
    ("local_response_norm", {"x": _SEQUENCE, "size": _t(3)}, "rank 3"),
    ("local_response_norm", {"x": _IMAGE, "size": _t(2)}, "odd sizes"),
    ("instance_norm", {"x": _IMAGE[None]}, "spatial axes"),
    (
        "conv_transpose", {"x": _SEQUENCE, "weight": torch.ones(1, 1, 1), "strides": _t(2), "pad_type": "same"},
        "smaller",
    ),
    ("conv_transpose", {"x": _SEQUENCE, "weight": torch.ones(1, 1, 1), "pad_type": "same_lower"}, "same_lower"),
    ("conv_transpose", {"x": _SEQUENCE, "weight": torch.ones(1, 1, 1), "output_shape": _t(1, 1, 6)}, "output_shape"),
    (
        "resize", {"x": _IMAGE, "shape": _t(8), "resized_dims": _t(1)[0], "interpolation_mode": "NEAREST_NEIGHBOR"},
        "nearest",
    ),
    (
        "resize_nearest_neighbor", {"x": _IMAGE, "target_size_height": _t(4)[0], "target_size_width": _t(6)[0]},
        "multiples",
    ),
    ("upsample_nearest_neighbor", {"x": _IMAGE, "scale_factor_width": 1.3}, "whole numbers"),
    ("upsample_bilinear", {"x": _IMAGE, "align_corners": True, "half_pixel_centers": True}, "half_pixel_centers"),
    ("gather", {"x": _IMAGE, "indices": _t(-1), "axis": 2}, r"\[0, 4\).*got -1"),
    ("gather_along_axis", {"x": _SEQUENCE, "indices": torch.full((1, 1, 2), 5), "axis": 2}, r"\[0, 5\).*5 to 5"),
    ("squeeze", {"x": _IMAGE, "axes": _t(2)}, "longer than 1"),
    (
        "slice_by_index",
        {"x": _IMAGE, "begin": _t(0, 0, 0, 0), "end": _t(1, 1, 4, 4), "stride": _t(1, 1, 2, 1),
         "squeeze_mask": _t(True, False, False, False)},
        "squeeze_mask",
    ),
    ("slice_by_index", {"x": _SEQUENCE[0, 0], "begin": _t(-1), "end": _t(-2), "stride": _t(-1)}, "backwards"),
    ("topk", {"x": _SEQUENCE, "k": 2, "sort": False}, "no order"),
    ("range_1d", {"start": torch.tensor(1.0), "end": torch.tensor(10.0), "step": torch.tensor(1e-6)}, "small steps"),
    ("reduce_mean", {"x": _WHOLE}, "rounded"),
    ("reduce_sum", {"x": _SEQUENCE, "axes": torch.zeros(0)}, "no axis"),
    ("real_div", {"x": _WHOLE, "y": _WHOLE + 1}, "rounded"),
    ("matmul", {"x": torch.ones(2, 2), "y": torch.ones(2, 2).int()}, "integers"),
    ("linear", {"x": torch.ones(2, 2).int(), "weight": torch.ones(2, 2)}, "integers"),
    ("einsum", {"values": [torch.ones(2, 2), torch.ones(2, 2)], "equation": "ab,bc->ac"}, "ab,bc->ac"),
]  # fmt: skip
# What Core ML itself is known to reject.
REJECTED: list[tuple[str, dict[str, Any], str]] = [
    ("pad", {"x": _IMAGE, "pad": _t(0, 0, 1, 1, 0, 0, 0, 0), "mode": "replicate"}, "last two axes"),
    ("pad", {"x": _IMAGE, "pad": _t(4, 0), "mode": "reflect"}, "at most 3"),
    ("pad", {"x": _IMAGE, "pad": _t(0, 5), "mode": "replicate"}, "at most 4"),
    ("prelu", {"x": torch.ones(1, 2, 3), "alpha": _t(0.1, 0.2)}, "rank 4"),
    (
        "avg_pool",
        {"x": _SEQUENCE, "kernel_sizes": _t(2), "pad_type": "custom", "pad": _t(0, 1), "ceil_mode": True},
        "equal",
    ),
    ("gelu", {"x": _SEQUENCE, "mode": "QUICK"}, "QUICK"),
]


def _ids(table: Sequence[tuple[str, dict[str, Any], str]]) -> list[str]:
    return [f"{operation}-{reason}" for operation, _, reason in table]


@pytest.mark.parametrize(("operation", "arguments", "reason"), OPEN, ids=_ids(OPEN))
def test_what_mil_leaves_open_is_not_guessed(operation: str, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(OpenError, match=reason):
        OPERATIONS[operation](**arguments)


@pytest.mark.parametrize(("operation", "arguments", "reason"), REJECTED, ids=_ids(REJECTED))
def test_what_core_ml_rejects_is_an_error(operation: str, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        OPERATIONS[operation](**arguments)


def test_all_of_an_axis_may_be_asked_of_topk() -> None:
    values, indices = OPERATIONS["topk"](x=_t(3.0, 1.0, 2.0), k=-1, axis=0)  # coremltools cannot write this down
    assert values.tolist() == [3, 2, 1]
    assert indices.tolist() == [0, 2, 1]


def test_what_floats_beyond_an_integers_range_become_is_open() -> None:
    for beyond in (3e9, float("nan"), -float("inf")):
        with pytest.raises(OpenError, match="become in int32"):
            _rounded(torch.tensor([1.0, beyond]), "int32")
    assert _rounded(torch.tensor([7], dtype=torch.uint16), "uint16").tolist() == [7]


def test_a_program_says_what_is_not_sure(tmp_path: Path) -> None:
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 2, 2, 4))], opset_version=ct.target.iOS17)  # type: ignore[untyped-decorator]
    def program(x: Any) -> Any:
        return mb.upsample_nearest_neighbor(x=x, scale_factor_width=1.3, name="unsure")

    model = ct.convert(
        program, convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17, skip_model_load=True,
        compute_precision=ct.precision.FLOAT32, pass_pipeline=ct.PassPipeline.EMPTY,
    )  # fmt: skip
    model.save(str(tmp_path / "small.mlpackage"))
    with pytest.raises(NotRunnableError, match=r"small\.mlpackage.*upsample_nearest_neighbor \(unsure.*on macOS"):
        Program(tmp_path / "small.mlpackage").run([np.zeros((1, 2, 2, 4), np.float32)])


def _written(artifact: Artifact) -> list[Any]:
    return list(_main(_read_model(artifact.path)[0])[1].operations)


def test_the_exporter_writes_no_pool_that_core_ml_counts_otherwise(tmp_path: Path) -> None:
    model, x = nn.AvgPool2d(2, stride=3, ceil_mode=True), torch.from_numpy(_PUBLISHED)
    artifact = se.export(model, (x,), format="coreml", out=tmp_path)
    assert se.verify(artifact, model, [x]).real.snr_db > 100
    pools = [operation for operation in _written(artifact) if operation.type == "avg_pool"]
    assert pools, "the network still has its pool"
    for pool in pools:
        written = {
            other.outputs[0].name: other.attributes["val"].immediateValue.tensor.bools.values
            for other in _written(artifact)
            if other.type == "const"
        }
        assert not any(written[pool.inputs["ceil_mode"].arguments[0].name])


class Each(nn.Module):
    """Gives the output of each function, so that one conversion tests them all."""

    def __init__(self, functions: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x) for function in self.functions)


# Each is left open or rejected as the converter would write it, or is something else in Core ML.
OTHERWISE: list[Callable[[Tensor], Tensor]] = [
    lambda x: F.avg_pool1d(x[:, 0], 2, 3, ceil_mode=True),
    lambda x: F.avg_pool1d(x[:, 0], 3, 2, 1, ceil_mode=True, count_include_pad=False),
    lambda x: F.max_pool2d(x, 1, 3, ceil_mode=True),
    lambda x: F.max_pool2d(x, (1, 2), (3, 3), ceil_mode=True),
    lambda x: F.interpolate(x, size=(12, 5)),
    lambda x: F.interpolate(x, scale_factor=1.3),
    lambda x: F.interpolate(x[:, 0], size=11),
    lambda x: F.interpolate(x, scale_factor=(1.3, 0.7), mode="bilinear"),
    lambda x: F.interpolate(x[:, 0], scale_factor=1.3, mode="linear"),
    lambda x: F.pad(x[None], (1, 0, 2, 1, 1, 2), mode="reflect"),
    lambda x: F.pad(x[None], (1, 0, 0, 1, 3, 2), mode="replicate"),
    lambda x: F.instance_norm(x.unflatten(1, (2, 2))),
    lambda x: x.topk(2, 1, sorted=False)[0],
    lambda x: x.cumsum(-2),
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: F.softplus(x, 2, 1),
]


def test_the_exporter_avoids_what_core_ml_computes_otherwise(tmp_path: Path) -> None:
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Each(OTHERWISE).eval()
    artifact = se.export(model, (x,), format="coreml", out=tmp_path)
    found = predict(get_exporter("coreml").load(artifact), artifact, [x.numpy()])
    for function, actual, wanted in zip(OTHERWISE, found, model(x), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5, err_msg=inspect.getsource(function))
