"""How others compress: each makes a model from a strength, 0 to 1, by its own rule of where to save.

torch-pruning and AIMET are their packages. MUSCO's asks for a TensorLy that no longer runs: its rule, and the analytic
solution of variational Bayesian matrix factorization that it rests on, stand here.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from copy import deepcopy
from math import ceil, prod
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from sekron_edge.data import collate
from sekron_edge.nn import layer_primitives, replace_layers
from sekron_edge.pipeline import example_inputs
from sekron_edge.structure import Factor, Structure, tucker2
from sekron_edge.task import Task
from sekron_edge.training import evaluate

Compress = Callable[[float], nn.Module]
# Widths that vector units take whole.
_MULTIPLE = 4
_GRADIENT_SAMPLES = 128
_PRUNING_STEPS = 10
_IMAGE = 14


def tucker2_vbmf(model: nn.Module, task: Task) -> Compress:
    """Tucker-2 by MUSCO's rule: ranks from all towards those that VBMF finds, by one factor for all layers.

    MUSCO compresses again after fine-tuning to get below these ranks; here, beyond a strength of a half, they are
    scaled towards 1. A layer that Tucker-2 would make no smaller stays as it is.
    """
    del task
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    layers = {name: layer for name, layer in layers.items() if prod(layer.kernel_size) > 1 and layer.groups == 1}
    weights = {name: layer.weight.detach().double() for name, layer in layers.items()}
    found = {name: [vbmf_rank(_unfolded(weight, mode)) for mode in (0, 1)] for name, weight in weights.items()}

    def compress(strength: float) -> nn.Module:
        structures = {}
        for name, layer in layers.items():
            shape = tuple(layer.weight.shape)
            ranks = [_weakened(full, rank, strength) for full, rank in zip(shape[:2], found[name], strict=True)]
            structure = tucker2(shape, *ranks)
            dense = Structure(factors=(Factor(shape=shape),), ranks={})
            if _macs(structure, layer) < _macs(dense, layer):
                structures[name] = structure
        return replace_layers(model, structures)

    return compress


def _weakened(full: int, vbmf: int, strength: float) -> int:
    """Return MUSCO's weakened rank for the first half of the strengths, a part of VBMF's for the second."""
    if strength <= 0.5:
        return round(full - 2 * strength * (full - max(1, vbmf)))
    return max(1, round(2 * (1 - strength) * vbmf))


def _unfolded(weight: Tensor, mode: int) -> Tensor:
    return weight.movedim(mode, 0).flatten(1)


def _macs(structure: Structure, layer: nn.Module) -> int:
    in_shape = (1, structure.shape[1], _IMAGE, _IMAGE)
    return sum(primitive.macs for primitive in layer_primitives(structure, layer, in_shape))


def vbmf_rank(matrix: Tensor) -> int:
    """Return the rank that empirical variational Bayesian matrix factorization finds, its noise estimated.

    Ref: Nakajima, Sugiyama, Babacan, Tomioka: Global analytic solution of fully-observed variational Bayesian matrix
    factorization, JMLR 14, 2013, section 4.
    """
    rows, columns = sorted(matrix.shape)
    squares = torch.linalg.svdvals(matrix).numpy() ** 2
    alpha = rows / columns
    tau = 2.5129 * alpha**0.5
    threshold = (1 + tau) * (1 + alpha / tau)

    def free_energy(variance: float) -> float:
        x = squares / (columns * variance)
        signal = x[x > threshold]
        t = ((signal - 1 - alpha) + np.sqrt((signal - 1 - alpha) ** 2 - 4 * alpha)) / 2
        return float(np.sum(x - np.log(x)) + np.sum(np.log(t + 1) + alpha * np.log(t / alpha + 1) - t))

    most = min(ceil(rows / (1 + alpha)) - 1, rows - 1)
    rest = squares[most:]
    lower = max(rest[0] / (columns * threshold), rest.mean() / columns)
    upper = squares.mean() / columns
    variance = minimize_scalar(free_energy, bounds=(lower, upper), method="bounded").x
    return int((squares > columns * variance * threshold).sum())


def spatial_svd_greedy(model: nn.Module, task: Task) -> Compress:
    """Spatial SVD with AIMET's greedy choice of ranks: each layer's accuracy alone on calibration data, one threshold.

    The first layer is left alone, as in AIMET's own example.
    """
    from aimet_torch.common.defs import CompressionScheme, CostMetric, GreedySelectionParameters
    from aimet_torch.compress import ModelCompressor
    from aimet_torch.defs import SpatialSvdParameters

    for logger in ("CompRatioSelect", "Svd", "Utils"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    shape = tuple(example_inputs(task)[0].shape)
    first = next(name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    folder = Path(mkdtemp())  # AIMET keeps its layers' scores in ./data
    scores = folder / "data" / "greedy_selection_eval_scores_dict.pkl"

    def score(changed: nn.Module, iterations: int, use_cuda: bool) -> float:
        del iterations, use_cuda
        return evaluate(changed, task, split="calibration")

    def compress(strength: float) -> nn.Module:
        own = deepcopy(model)
        greedy = GreedySelectionParameters(
            1 - strength, saved_eval_scores_dict=str(scores) if scores.is_file() else None
        )
        modes = SpatialSvdParameters.Mode, SpatialSvdParameters.AutoModeParams
        parameters = SpatialSvdParameters(modes[0].auto, modes[1](greedy, [own.get_submodule(first)]), _MULTIPLE)
        with contextlib.chdir(folder):
            small: nn.Module
            small, _ = ModelCompressor.compress_model(
                own, score, None, shape, CompressionScheme.spatial_svd, CostMetric.mac, parameters
            )
        return small

    return compress


def structured_pruning(model: nn.Module, task: Task) -> Compress:
    """Channels removed by torch-pruning, those first that a Taylor expansion of the loss finds least important.

    In steps, the importance computed anew for each: a layer that one step would empty is left as it is. Where shortcuts
    fill up channels with zeros, which its graph does not know, blocks are pruned inside.
    """
    import torch_pruning

    inputs, targets = collate([task.calibration[index] for index in range(_GRADIENT_SAMPLES)])

    def compress(strength: float) -> nn.Module:
        own = deepcopy(model).eval()
        classifier = next(layer for layer in own.modules() if isinstance(layer, nn.Linear))
        pruner = torch_pruning.pruner.BasePruner(
            own, example_inputs(task)[0], torch_pruning.importance.GroupTaylorImportance(),
            global_pruning=True, pruning_ratio=strength, iterative_steps=_PRUNING_STEPS,
            ignored_layers=[classifier, *_beside_shortcuts(own)], round_to=_MULTIPLE,
        )  # fmt: skip
        for _ in range(_PRUNING_STEPS):
            own.zero_grad()
            assert task.loss is not None
            task.loss(own(inputs), targets).backward()
            pruner.step()
        own.zero_grad()
        return own

    return compress


def _beside_shortcuts(model: nn.Module) -> list[nn.Module]:
    """Return the convolutions whose channels meet a shortcut that fills up with zeros; none without such shortcuts."""
    if not any(getattr(block, "_padding", 0) for block in model.modules()):
        return []
    names = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    return [model.get_submodule(name) for name in names if name == names[0] or name.endswith("conv2")]
