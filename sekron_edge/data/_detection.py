"""The task of finding objects: boxes for the metric, and any outputs of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from sekron_edge.data._images import collate
from sekron_edge.data._mean_precision import Decode, mean_average_precision, require_pycocotools
from sekron_edge.data._unlabelled import output_divergence
from sekron_edge.pytrees import PerSample
from sekron_edge.task import Normalization, Samples, Task


class Boxed(Dataset[Any]):
    """Samples whose targets cannot be stacked: a batch has them one by one.

    Args:
        samples: ``(inputs, target)`` each, from any map-style data set; read when they are needed.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        """Return a sample."""
        return self._samples[index]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Any, PerSample]:
        """Return a batch of inputs, and the targets of each."""
        inputs, targets = zip(*(self._samples[index] for index in indices), strict=True)
        return collate(list(inputs)), PerSample(targets)


def detection(
    train: Samples,
    calibration: Samples,
    heldout: Samples,
    *,
    decode: Decode,
    loss: Callable[[Any, PerSample], Tensor] | None = None,
    normalization: Normalization | None = None,
) -> Task:
    """Make the task of finding objects; the metric is COCO's mean average precision.

    Plans and distillation compare each of the model's outputs with the original's, so heads of any form will do.

    Args:
        train: Samples ``(image, target)``; a target is a dict of ``boxes``, float ``(n, 4)``, left, top, right and
            bottom in pixels of the input, ``labels``, int ``(n,)``, and perhaps ``crowd``, bool ``(n,)``.
        calibration: Training samples without augmentation.
        heldout: Samples for final figures.
        decode: Makes of a model's outputs for a batch, any pytree, one dict for each sample: ``boxes`` and ``labels``
            as in targets, and ``scores`` ``(n,)``.
        loss: Of outputs and the targets of the batch; None: the model is only distilled.
        normalization: Of the images; for the manifest.

    Raises:
        MissingDependencyError: If pycocotools is absent.
    """
    require_pycocotools()
    return Task(
        name="detection",
        train=Boxed(train),
        calibration=Boxed(calibration),
        heldout=Boxed(heldout),
        loss=loss,
        distillation=output_divergence,
        metric=partial(mean_average_precision, decode),
        metric_name="mAP",
        normalization=normalization,
    )
