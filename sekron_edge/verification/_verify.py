"""Checks of an artifact against its model, and its score on a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from sekron_edge import pytrees
from sekron_edge.arguments import require
from sekron_edge.artifacts import Array, Artifact, batch_and_total, get_exporter, predict, whole_batches
from sekron_edge.data import batch_of, collate, require_targets
from sekron_edge.errors import ConfigError, VerificationError
from sekron_edge.nn import exportable, exportable_inputs, flattened, outputs_for
from sekron_edge.task import Task
from sekron_edge.verification._comparison import TOLERANCES, Check, MetricPair, Tolerance, compare
from sekron_edge.verification._first_layer import first_layer_that_differs, model_outputs
from sekron_edge.verification._noise import noise_like

_SCORED_TOGETHER = 64


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
    noise = [noise_like(value, generator) for value in real]
    like = outputs_for(original, one)
    names = list(pytrees.named_tensors(like))
    classes = _classes(task, targets)
    compared = {}
    outputs: dict[str, tuple[list[Array], tuple[Array, ...]]] = {}
    for kind, values, least in (("real inputs", real, allowed), ("noise", noise, allowed.of_outputs())):
        actual = predict(session, artifact, [value.numpy() for value in values])
        outputs[kind] = model_outputs(model, values, artifact), actual
        compared[kind] = compare(*outputs[kind], classes=classes, names=names)
        if not compared[kind].within(least):
            raise VerificationError(
                f"{artifact.path.name} does not compute what its model computes: on {kind} {compared[kind]}, where "
                f"{least} must hold. {first_layer_that_differs(artifact, model, values, least, samples, classes)}"
            )
    metric = None
    if task is not None and targets is not None:
        metric = _metric(task, targets, like, *outputs["real inputs"])
        if task.metric_unit == "%" and task.lost(metric.artifact, metric.model) > allowed.metric:
            raise VerificationError(
                f"{artifact.path.name} loses more than {allowed.metric:g} of the task's metric: {metric}. "
                f"{first_layer_that_differs(artifact, model, real, allowed, samples, classes)}"
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
