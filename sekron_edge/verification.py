"""Proof that an artifact computes what its PyTorch model computes, on real inputs and on noise."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sekron_edge import pytrees
from sekron_edge.arguments import require
from sekron_edge.artifacts import Array, Artifact, Precision, batch_and_total, get_exporter, predict, whole_batches
from sekron_edge.data import batch_of, collate, require_targets
from sekron_edge.errors import ConfigError, ExportError, VerificationError
from sekron_edge.nn import exportable, exportable_inputs, flattened, outputs_for, unfused_attention
from sekron_edge.task import Task

_SCORED_TOGETHER = 64
_VECTORS = 2  # axes of a batch of vectors
_PERFECT_DB = 200.0  # instead of infinity, which JSON cannot express


class Tolerance(BaseModel):
    """The limits of a verification.

    Attributes:
        snr_db: Least signal-to-noise ratio, in dB.
        agreement: Least share of decisions that agree.
        metric: Largest loss of the task's metric compared to the model's, if it is a share, as accuracy is. A metric
            of another unit has no loss that is small everywhere: the outputs' ratio judges, and the job's budget.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    snr_db: float
    agreement: float
    metric: float

    def __str__(self) -> str:
        agreed = f" and {self.agreement:.1%} agreement" if self.agreement > 0 else ""
        return f"at least {self.snr_db:g} dB{agreed}"

    def of_outputs(self) -> Tolerance:
        """Return the limits on noise, where the model has learnt no decisions: their agreement says nothing."""
        return self.model_copy(update={"agreement": 0.0})


TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(snr_db=60.0, agreement=0.998, metric=0.002),
    "fp16": Tolerance(snr_db=35.0, agreement=0.99, metric=0.01),
    "int8": Tolerance(snr_db=15.0, agreement=0.9, metric=0.03),
    "int8-weights": Tolerance(snr_db=25.0, agreement=0.95, metric=0.01),
    "int4-weights": Tolerance(snr_db=8.0, agreement=0.8, metric=0.1),
}


class Comparison(BaseModel):
    """Outputs of an artifact compared to those of its model, over all samples and outputs.

    Attributes:
        samples: Number of inputs.
        max_error, mean_error: Of the absolute differences.
        snr_db: ``10 log10(sum y^2 / sum (y - y')^2)``, at most 200; of several outputs, the lowest.
        agreement: Share of decisions that are the same: of samples, or of their places, whose largest output is at the
            same class. None where outputs decide nothing.
        output: The output with that ratio; None if there is one only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    max_error: float
    mean_error: float
    snr_db: float
    agreement: float | None
    output: str | None = None

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether the tolerance is kept; one of several samples may always be a tie that falls the other way."""
        tie = 1 / self.samples if self.samples > 1 else 0.0
        least = min(tolerance.agreement, 1 - tie)
        return self.snr_db >= tolerance.snr_db and (self.agreement is None or self.agreement >= least)

    def __str__(self) -> str:
        agreed = "" if self.agreement is None else f", {self.agreement:.2%} of decisions agree"
        where = "" if self.output is None else f" ({self.output})"
        return f"max error {self.max_error:.3g}, signal-to-noise {self.snr_db:.1f} dB{where}{agreed}"


class MetricPair(BaseModel):
    """The task's metric of the model and of its artifact, on the same samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: float
    artifact: float

    def __str__(self) -> str:
        return f"{self.name} {self.artifact:.4g} (model {self.model:.4g})"


class Check(BaseModel):
    """A verification that held, on the given inputs and on noise like them, within their range.

    On noise the equal decisions are counted, and need not be many; the outputs themselves must be near.
    ``metric`` is None where no targets were given; ``measurable`` is False for a reference evaluator.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact_sha256: str
    runtime: str
    runtime_version: str
    measurable: bool
    tolerance: Tolerance
    real: Comparison
    noise: Comparison
    metric: MetricPair | None = None


def compare(
    expected: Sequence[Array], actual: Sequence[Array], *, classes: int | None = 0, names: Sequence[str] = ()
) -> Comparison:
    """Compare outputs, each ``(batch, ...)``. A value in ``actual`` that is not finite counts as infinitely wrong.

    Each output is compared by itself, so that a small one does not hide behind a large one: the lowest ratio counts.
    Outputs of integers are decisions.

    Args:
        expected: Outputs of the model.
        actual: Outputs of the artifact.
        classes: Number of the task's classes: a first output ``(batch, classes, ...)`` decides at each place. A first
            output ``(batch, values)`` decides in any case, except where this is None: then no floats decide.
        names: Of the outputs.

    Raises:
        VerificationError: If there are other outputs, or an output has another shape.
    """
    if len(expected) != len(actual):
        raise VerificationError(f"the artifact gives {len(actual)} outputs, the model {len(expected)}")
    ratios: list[float] = []
    equal: list[float] = []
    total = largest = 0.0
    count = 0
    for wanted, got in zip(expected, actual, strict=True):
        if wanted.shape != got.shape:
            raise VerificationError(f"the artifact gives an output of shape {got.shape}, the model {wanted.shape}")
        wide = wanted.astype(np.float64)
        error = np.nan_to_num(np.abs(got.astype(np.float64) - wide), nan=np.inf, posinf=np.inf)
        total += float(error.sum())
        largest = max(largest, float(error.max(initial=0.0)))
        count += error.size
        if wanted.dtype.kind == "f":
            ratios.append(_decibels(float(np.square(wide).sum()), float(np.square(error).sum())))
        else:
            ratios.append(_PERFECT_DB)
            equal.append(float((error == 0).mean()))
    first = expected[0]
    decides = first.ndim > 1 and first.shape[1] > 1 and first.dtype.kind == "f" and classes is not None
    if decides and (first.ndim == 2 or first.shape[1] == classes):
        equal.append(float((expected[0].argmax(1) == actual[0].argmax(1)).mean()))
    worst = int(np.argmin(ratios))
    return Comparison(
        samples=expected[0].shape[0],
        max_error=min(largest, np.finfo(np.float64).max),
        mean_error=min(total / max(count, 1), np.finfo(np.float64).max),
        snr_db=ratios[worst],
        agreement=min(equal, default=None),
        output=(names[worst] if names else f"output {worst}") if len(expected) > 1 else None,
    )


def _decibels(signal: float, noise: float) -> float:
    """Return a ratio that JSON can express: zeros for zeros are perfect, errors where zeros belong have no signal."""
    if noise == 0:
        return _PERFECT_DB
    ratio = signal / noise
    return -_PERFECT_DB if ratio == 0 else max(-_PERFECT_DB, min(10 * math.log10(ratio), _PERFECT_DB))


def verify(
    artifact: Artifact,
    model: nn.Module,
    inputs: pytrees.Inputs,
    *,
    task: Task | None = None,
    targets: Any = None,
    tolerance: Tolerance | None = None,
    calibration: pytrees.Inputs | None = None,
    seed: int = 0,
) -> Check:
    """Run an artifact and compare it to its PyTorch source.

    Args:
        artifact: Run in its runtime on this machine (or in a reference evaluator). Where that is impossible, the file
            that it was compiled from is run, and the check is of that file.
        model: The source of the artifact; compared in evaluation mode, left as it was.
        inputs: Real inputs, batched, as the model takes them (`sekron_edge.pytrees`); the batch is a multiple of the
            artifact's.
        task: With ``targets``, the artifact's metric is compared to the model's.
        targets: Of the inputs.
        tolerance: By default that of the precision, in ``TOLERANCES``.
        calibration: The inputs that the artifact was calibrated on; in int8 they help to find the first layer that
            differs.
        seed: Of the noise.

    Raises:
        VerificationError: If the artifact differs by more than the tolerance; names the first layer that differs,
            or says that the file is not what the model exports to.
        ConfigError: If there are no inputs, or the model does not take them.
    """
    require(artifact, Artifact, "artifact", "what sekron_edge.export returned")
    original = exportable(model)
    inputs = exportable_inputs(inputs, original)
    real = pytrees.tensors(inputs)
    one = _first_piece(artifact, inputs)
    model = flattened(original, one).model
    samples = None if calibration is None else pytrees.tensors(exportable_inputs(calibration, original))
    allowed = tolerance or TOLERANCES[artifact.precision]
    artifact = artifact.runnable
    session = get_exporter(artifact.format).load(artifact)
    generator = torch.Generator().manual_seed(seed)
    noise = [_noise_like(value, generator) for value in real]
    like = outputs_for(original, one)
    names = list(pytrees.named_tensors(like))
    classes = _classes(task, targets)
    compared = {}
    outputs: dict[str, tuple[list[Array], tuple[Array, ...]]] = {}
    for kind, values, least in (("real inputs", real, allowed), ("noise", noise, allowed.of_outputs())):
        actual = predict(session, artifact, [value.numpy() for value in values])
        outputs[kind] = _outputs(model, values, artifact), actual
        compared[kind] = compare(*outputs[kind], classes=classes, names=names)
        if not compared[kind].within(least):
            raise VerificationError(
                f"{artifact.path.name} does not compute what its model computes: on {kind} {compared[kind]}, where "
                f"{least} must hold. {_blame(artifact, model, values, least, samples, classes)}"
            )
    metric = None
    if task is not None and targets is not None:
        metric = _metric(task, targets, like, *outputs["real inputs"])
        if task.metric_unit == "%" and task.lost(metric.artifact, metric.model) > allowed.metric:
            raise VerificationError(
                f"{artifact.path.name} loses more than {allowed.metric:g} of the task's metric: {metric}. "
                f"{_blame(artifact, model, real, allowed, samples, classes)}"
            )
    return Check(
        artifact_sha256=artifact.sha256,
        runtime=session.runtime,
        runtime_version=session.runtime_version,
        measurable=session.measurable,
        tolerance=allowed,
        real=compared["real inputs"],
        noise=compared["noise"],
        metric=metric,
    )


def _first_piece(artifact: Artifact, inputs: pytrees.Inputs) -> pytrees.Inputs:
    """Return the first batch of an artifact's size.

    Raises:
        ConfigError: If there are not as many inputs as the artifact has, or too few samples.
    """
    values, shapes = pytrees.tensors(inputs), [spec.torch_shape for spec in artifact.runnable.inputs]
    if len(values) != len(shapes):
        raise ConfigError(f"{artifact.path.name} takes {len(shapes)} inputs, and {len(values)} were given")
    piece = next(whole_batches(values, shapes), None)
    if piece is None:
        raise ConfigError(f"{artifact.path.name} takes shapes {shapes}; the inputs given do not fill one batch")
    return pytrees.restored(piece, inputs)


def _classes(task: Task | None, targets: Any) -> int | None:
    """Return the number of classes that outputs decide among; None where the targets are values, not classes."""
    if any(value.is_floating_point() for value in pytrees.tensors(targets)):
        return None
    return 0 if task is None else len(task.labels)


def _noise_like(real: Tensor, generator: torch.Generator) -> Tensor:
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
        noise = _of_other_phases(real, generator)
    else:
        noise = torch.randn(real.shape, generator=generator) * real.std(correction=0) + real.mean()
    return noise.clamp(real.min(), real.max())


def _of_other_phases(real: Tensor, generator: torch.Generator) -> Tensor:
    """Shift the phases of samples ``(batch, channels, *axes)``, alike in all channels; means stay."""
    axes, sizes = tuple(range(2, real.ndim)), real.shape[2:]
    white = torch.randn(len(real), 1, *sizes, generator=generator, dtype=real.dtype)
    shifts = torch.fft.rfftn(white, dim=axes)
    turned = shifts / shifts.abs().clamp_min(torch.finfo(real.dtype).tiny)
    turned[(..., *(0 for _ in sizes))] = 1
    noise: Tensor = torch.fft.irfftn(torch.fft.rfftn(real, dim=axes) * turned, s=sizes, dim=axes)
    return noise


def score_artifact(
    artifact: Artifact, task: Task, *, like: pytrees.Outputs | None = None, samples: int | None = None
) -> float:
    """Return the task's metric of an artifact on held-out samples, run in its runtime on this machine.

    Args:
        artifact: It, or the file that it was compiled from, is run; samples that do not fill its last batch are left
            out.
        task: Its held-out data and metric are used.
        like: Outputs of the model that was exported: the metric sees their structure. None: the first output alone.
        samples: Most samples, spread over all; by default all.

    Raises:
        ConfigError: If the task has no labels.
    """
    require_targets(task)
    artifact = artifact.runnable
    session = get_exporter(artifact.format).load(artifact)
    metric = task.metric()
    shapes = [spec.torch_shape for spec in artifact.inputs]
    total = len(task.heldout)  # type: ignore[arg-type]
    chosen = Subset(task.heldout, range(0, total, max(1, total // (samples or total)))[: samples or total])
    alone, _ = batch_of(chosen, [0])
    batch, _ = batch_and_total(pytrees.tensors(alone), shapes)
    # The loader's own generator keeps it from drawing on the global one.
    loader = DataLoader(
        chosen, batch * _SCORED_TOGETHER, collate_fn=collate, generator=torch.Generator().manual_seed(0)
    )
    for inputs, targets in loader:
        given = [value.numpy() for value in pytrees.tensors(inputs)]
        _, size = batch_and_total(given, shapes)
        whole = size - size % batch
        if whole:
            given = [
                value if value.shape == shape else value[:whole] for value, shape in zip(given, shapes, strict=True)
            ]
            outputs = predict(session, artifact, given)
            restored = _restored(outputs[:1], torch.zeros(1)) if like is None else _restored(outputs, like)
            metric.update(restored, next(pytrees.batches(targets, whole)))
    return float(metric.compute())


def _restored(outputs: Sequence[Array], like: pytrees.Outputs) -> pytrees.Outputs:
    """Return outputs in the structure of a model's own."""
    values = [torch.from_numpy(each.astype(np.float32) if each.dtype.kind == "f" else each) for each in outputs]
    return pytrees.restored(values, like)


def _metric(
    task: Task, targets: Any, like: pytrees.Outputs, expected: Sequence[Array], actual: Sequence[Array]
) -> MetricPair:
    def value(outputs: Sequence[Array]) -> float:
        metric = task.metric()
        metric.update(_restored(outputs, like), targets)
        return float(metric.compute())

    return MetricPair(name=task.metric_name, model=value(expected), artifact=value(actual))


class _Seen:
    """Holds the output of a layer while a model runs. Tracers follow it, where they refuse hooks."""

    output: Tensor | None = None


class _Watched(nn.Module):
    """In the place of a layer: calls it, and shows its output."""

    def __init__(self, layer: nn.Module, seen: _Seen) -> None:
        super().__init__()
        self.layer = layer
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        """Be the layer to those that look at its attributes."""
        if name in self.__dict__["_modules"]:
            return super().__getattr__(name)
        return getattr(super().__getattr__("layer"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.layer(*args, **kwargs)
        if self._seen.output is None:
            self._seen.output = output
        return output


class _Tap(nn.Module):
    """Returns the output of one layer of a model, at its first call."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self._seen = _Seen()
        self.model.set_submodule(layer, _Watched(self.model.get_submodule(layer), self._seen))

    def forward(self, *inputs: Tensor) -> Tensor:
        self._seen.output = None
        self.model(*inputs)
        output = self._seen.output
        self._seen.output = None  # a tensor with a gradient could not be copied with the model
        assert output is not None
        return output


def _outputs(model: nn.Module, inputs: Sequence[Tensor], artifact: Artifact) -> list[Array]:
    """Return a model's outputs; in batches of the artifact's size, if they are not one for each sample."""
    evaluated = copy.deepcopy(model).eval()
    shapes = [spec.torch_shape for spec in artifact.inputs]
    size, total = batch_and_total(inputs, shapes)

    def run(values: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad(), unfused_attention():
            result = evaluated(*values)
        return list(result) if isinstance(result, tuple) else [result]

    results = run(inputs)
    if total > size and any(not value.ndim or len(value) != total for value in results):
        results = list(pytrees.concatenated([run(piece) for piece in whole_batches(inputs, shapes)]))
    return [value.numpy() for value in results]


def _layers(model: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Return the leaves with one tensor as output, in the order in which they run; without those that do nothing."""
    evaluated = copy.deepcopy(model).eval()
    order: list[str] = []

    def note(name: str, module: nn.Module, given: tuple[object, ...], output: object) -> None:
        nothing = output is given[0] and not getattr(module, "inplace", False) if given else False
        if isinstance(output, Tensor) and name not in order and not nothing:
            order.append(name)

    for name, module in evaluated.named_modules():
        # A factorized layer's only child is its list of weights: the layer is the leaf.
        children = [child for child in module.children() if not isinstance(child, nn.ParameterList)]
        if name and not children and not isinstance(module, nn.ParameterList):
            module.register_forward_hook(lambda own, given, output, name=name: note(name, own, given, output))
    with torch.no_grad():
        evaluated(*inputs)
    return order


def _blame(
    artifact: Artifact,
    model: nn.Module,
    inputs: Sequence[Tensor],
    allowed: Tolerance,
    calibration: Sequence[Tensor] | None,
    classes: int | None,
) -> str:
    """Export the model again, cut after one layer and another, and name the first that differs (binary search)."""
    example = tuple(next(whole_batches(inputs, [spec.torch_shape for spec in artifact.inputs])))
    exporter = get_exporter(artifact.format)

    def differs(candidate: nn.Module) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"part{exporter.suffix}"
            part = exporter.export(candidate, example, precision=artifact.precision, path=path, calibration=calibration)
            actual = predict(exporter.load(part), part, [value.numpy() for value in inputs])
        return not compare(_outputs(candidate, inputs, artifact), actual, classes=classes).within(allowed)

    try:
        if not differs(model):
            return "A fresh export of the model agrees: the file is damaged, or of another model; export it again."
        layers = _layers(model, inputs)
        low, high = 0, len(layers)
        while low < high:
            middle = (low + high) // 2
            if differs(_Tap(model, layers[middle])):
                high = middle
            else:
                low = middle + 1
    except (ConfigError, ExportError) as error:
        return f"The layer could not be found: {error}"
    if low == len(layers):
        return "Every layer by itself agrees; the difference comes after the last one, in the model's own forward()."
    kind = type(model.get_submodule(layers[low])).__name__
    return f"The first layer that differs is {layers[low]!r} ({kind})."
