"""Proof that an artifact computes what its PyTorch model computes, on real inputs and on noise."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from sekron_edge.artifacts import Array, Artifact, Precision, get_exporter, predict
from sekron_edge.data import collate
from sekron_edge.errors import ConfigError, ExportError, VerificationError
from sekron_edge.task import Task

_SCORED_TOGETHER = 64
_PERFECT_DB = 200.0  # instead of infinity, which JSON cannot express


class Tolerance(BaseModel):
    """The limits of a verification.

    Attributes:
        snr_db: Least signal-to-noise ratio, in dB.
        agreement: Least share of decisions that agree.
        metric: Largest loss of the task's metric compared to the model's, in the metric's own unit.
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
        snr_db: ``10 log10(sum y^2 / sum (y - y')^2)``, at most 200.
        agreement: Share of decisions that are the same: of samples, or of their places, whose largest output is at the
            same class. None where outputs decide nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int
    max_error: float
    mean_error: float
    snr_db: float
    agreement: float | None

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether the tolerance is kept; one of several samples may always be a tie that falls the other way."""
        tie = 1 / self.samples if self.samples > 1 else 0.0
        least = min(tolerance.agreement, 1 - tie)
        return self.snr_db >= tolerance.snr_db and (self.agreement is None or self.agreement >= least)

    def __str__(self) -> str:
        agreed = "" if self.agreement is None else f", {self.agreement:.2%} of decisions agree"
        return f"max error {self.max_error:.3g}, signal-to-noise {self.snr_db:.1f} dB{agreed}"


class MetricPair(BaseModel):
    """The task's metric of the model and of its artifact, on the same samples."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    model: float
    artifact: float

    def __str__(self) -> str:
        return f"{self.name} {self.artifact:.4g} (model {self.model:.4g})"


class Check(BaseModel):
    """A verification that held, on the given inputs and on noise with their mean and spread within their range.

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


def compare(expected: Sequence[Array], actual: Sequence[Array], *, classes: int = 0) -> Comparison:
    """Compare outputs, each ``(batch, ...)``. A value in ``actual`` that is not finite counts as infinitely wrong.

    Args:
        expected: Outputs of the model.
        actual: Outputs of the artifact.
        classes: Number of the task's classes: a first output ``(batch, classes, ...)`` decides at each place. A first
            output ``(batch, values)`` decides in any case.
    """
    signal = noise = total = largest = 0.0
    count = 0
    for wanted, got in zip(expected, actual, strict=True):
        if wanted.shape != got.shape:
            raise VerificationError(f"the artifact gives an output of shape {got.shape}, the model {wanted.shape}")
        wide = wanted.astype(np.float64)
        error = np.nan_to_num(np.abs(got.astype(np.float64) - wide), nan=np.inf, posinf=np.inf)
        signal += float(np.square(wide).sum())
        noise += float(np.square(error).sum())
        total += float(error.sum())
        largest = max(largest, float(error.max(initial=0.0)))
        count += error.size
    # Zeros for zeros are perfect; errors where zeros are expected have no signal at all.
    ratio = math.inf if noise == 0 else signal / noise
    snr = _PERFECT_DB if ratio == math.inf else (10 * math.log10(ratio) if ratio > 0 else -_PERFECT_DB)
    agreement = None
    first = expected[0]
    if first.ndim > 1 and first.shape[1] > 1 and (first.ndim == 2 or first.shape[1] == classes):
        agreement = float((expected[0].argmax(1) == actual[0].argmax(1)).mean())
    return Comparison(
        samples=expected[0].shape[0],
        max_error=min(largest, np.finfo(np.float64).max),
        mean_error=min(total / max(count, 1), np.finfo(np.float64).max),
        snr_db=max(-_PERFECT_DB, min(snr, _PERFECT_DB)),
        agreement=agreement,
    )


def verify(
    artifact: Artifact,
    model: nn.Module,
    inputs: Sequence[Tensor],
    *,
    task: Task | None = None,
    targets: Tensor | None = None,
    tolerance: Tolerance | None = None,
    calibration: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> Check:
    """Run an artifact and compare it to its PyTorch source.

    Args:
        artifact: Run in its runtime on this machine (or in a reference evaluator). Where that is impossible, the file
            that it was compiled from is run, and the check is of that file.
        model: The source of the artifact; compared in evaluation mode, left as it was.
        inputs: Real inputs, one tensor ``(batch, ...)`` for each input of the model; the batch is a multiple of the
            artifact's.
        task: With ``targets``, the artifact's metric is compared to the model's.
        targets: Of the inputs, ``(batch, ...)``.
        tolerance: By default that of the precision, in ``TOLERANCES``.
        calibration: The inputs that the artifact was calibrated on; in int8 they help to find the first layer that
            differs.
        seed: Of the noise.

    Raises:
        VerificationError: If the artifact differs by more than the tolerance; names the first layer that differs,
            or says that the file is not what the model exports to.
        ConfigError: If there are no inputs.
    """
    if not inputs or not len(inputs[0]):
        raise ConfigError("verification needs at least one real input")
    allowed = tolerance or TOLERANCES[artifact.precision]
    artifact = artifact.runnable
    session = get_exporter(artifact.format).load(artifact)
    generator = torch.Generator().manual_seed(seed)
    noise = [_noise_like(value.float(), generator) for value in inputs]
    classes = 0 if task is None else len(task.labels)
    compared = {}
    outputs: dict[str, tuple[list[Array], tuple[Array, ...]]] = {}
    for kind, values, least in (("real inputs", list(inputs), allowed), ("noise", noise, allowed.of_outputs())):
        actual = predict(session, artifact, [value.numpy() for value in values])
        outputs[kind] = _outputs(model, values), actual
        compared[kind] = compare(*outputs[kind], classes=classes)
        if not compared[kind].within(least):
            raise VerificationError(
                f"{artifact.path.name} does not compute what its model computes: on {kind} {compared[kind]}, where "
                f"{least} must hold. {_blame(artifact, model, values, least, calibration, classes)}"
            )
    metric = None
    if task is not None and targets is not None:
        metric = _metric(task, targets, *outputs["real inputs"])
        if metric.model - metric.artifact > allowed.metric:
            raise VerificationError(
                f"{artifact.path.name} loses more than {allowed.metric:g} of the task's metric: {metric}. "
                f"{_blame(artifact, model, list(inputs), allowed, calibration, classes)}"
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


def _noise_like(real: Tensor, generator: torch.Generator) -> Tensor:
    """Return noise with the mean and the spread of real inputs, within their range: int8 has no values beyond it."""
    noise = torch.randn(real.shape, generator=generator) * real.std(correction=0) + real.mean()
    return noise.clamp(real.min(), real.max())


def score_artifact(artifact: Artifact, task: Task, *, samples: int | None = None) -> float:
    """Return the task's metric of an artifact on held-out samples, run in its runtime on this machine.

    Args:
        artifact: It, or the file that it was compiled from, is run; samples that do not fill its last batch are left
            out.
        task: Its held-out data and metric are used.
        samples: Most samples, spread over all; by default all.
    """
    artifact = artifact.runnable
    session = get_exporter(artifact.format).load(artifact)
    metric = task.metric()
    batch = artifact.inputs[0].shape[0]
    # The loader's own generator keeps it from drawing on the global one.
    total = len(task.heldout)  # type: ignore[arg-type]
    chosen = Subset(task.heldout, range(0, total, max(1, total // (samples or total)))[: samples or total])
    loader = DataLoader(
        chosen, batch * _SCORED_TOGETHER, collate_fn=collate, generator=torch.Generator().manual_seed(0)
    )
    for inputs, targets in loader:
        whole = len(inputs) - len(inputs) % batch
        if whole:
            outputs = predict(session, artifact, [inputs[:whole].numpy()])
            metric.update(torch.from_numpy(outputs[0].astype(np.float32)), targets[:whole])
    return float(metric.compute())


def _metric(task: Task, targets: Tensor, expected: Sequence[Array], actual: Sequence[Array]) -> MetricPair:
    def value(outputs: Sequence[Array]) -> float:
        metric = task.metric()
        metric.update(torch.from_numpy(outputs[0].astype(np.float32)), targets)
        return float(metric.compute())

    return MetricPair(name=task.metric_name, model=value(expected), artifact=value(actual))


class _Tap(nn.Module):
    """Returns the output of one layer of a model, at its first call."""

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        self._layer = layer

    def forward(self, *inputs: Tensor) -> Tensor:
        # Hooked on each call: exporters copy the module, and a hook would still write to the original.
        seen: list[Tensor] = []
        hook = self.model.get_submodule(self._layer).register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            self.model(*inputs)
        finally:
            hook.remove()
        return seen[0]


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Array]:
    evaluated = copy.deepcopy(model).eval()
    with torch.no_grad():
        result = evaluated(*inputs)
    results = result if isinstance(result, tuple) else (result,)
    return [value.numpy() for value in results]


def _layers(model: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Return the leaves with one tensor as output, in the order in which they run."""
    evaluated = copy.deepcopy(model).eval()
    order: list[str] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, Tensor) and name not in order:
            order.append(name)

    for name, module in evaluated.named_modules():
        # A factorized layer's only child is its list of weights: the layer is the leaf.
        children = [child for child in module.children() if not isinstance(child, nn.ParameterList)]
        if name and not children and not isinstance(module, nn.ParameterList):
            module.register_forward_hook(lambda _, __, output, name=name: note(name, output))
    with torch.no_grad():
        evaluated(*inputs)
    return order


def _blame(
    artifact: Artifact,
    model: nn.Module,
    inputs: Sequence[Tensor],
    allowed: Tolerance,
    calibration: Sequence[Tensor] | None,
    classes: int,
) -> str:
    """Export the model again, cut after one layer and another, and name the first that differs (binary search)."""
    batch = artifact.inputs[0].shape[0]
    example = tuple(value[:batch] for value in inputs)
    exporter = get_exporter(artifact.format)

    def differs(candidate: nn.Module) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"part{exporter.suffix}"
            part = exporter.export(candidate, example, precision=artifact.precision, path=path, calibration=calibration)
            actual = predict(exporter.load(part), part, [value.numpy() for value in inputs])
        return not compare(_outputs(candidate, inputs), actual, classes=classes).within(allowed)

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
