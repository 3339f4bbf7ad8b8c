"""Training, calibration and held-out samples from data sets, or from a Lightning DataModule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, default_collate

from sekron_edge import pytrees
from sekron_edge.data._rows import MapStyle, Pick, picked
from sekron_edge.data._set_aside import drawn
from sekron_edge.errors import ConfigError, DataError
from sekron_edge.task import Samples

_LIGHTNING = {"lightning", "pytorch_lightning"}
_HELD_OUT_SHARE = 5


class Splits(NamedTuple):
    """The samples of a task, as its makers take them: ``labelled(*splits(data), labels=...)``."""

    train: Samples
    calibration: Samples
    heldout: Samples


def splits(
    train: MapStyle,
    heldout: MapStyle | None = None,
    *,
    calibration: MapStyle | None = None,
    calibration_samples: int = 512,
    seed: int = 0,
) -> Splits:
    """Split map-style data sets; nothing is read.

    Args:
        train: Samples ``(inputs, target)``, or inputs alone.
        heldout: Samples for final figures; by default a fifth of the others, drawn at random, which train no longer.
        calibration: Training samples without augmentation; by default some of the training samples.
        calibration_samples: How many.
        seed: Draws both.

    Raises:
        DataError: If there are too few samples.
    """
    if heldout is None:
        total = len(train)
        if total < 2:
            raise DataError(f"there must be at least 2 samples, one to train and one held out; there are {total}")
        held, kept = drawn(total, max(1, total // _HELD_OUT_SHARE), seed)
        train, heldout = _some(train, kept), _some(train, held)
    if calibration is None:
        chosen, _ = drawn(len(train), calibration_samples, seed)
        calibration = _some(train, chosen)
    return Splits(cast(Samples, train), cast(Samples, calibration), cast(Samples, heldout))


def data_module(
    module: Any,
    *,
    inputs: Pick | None = None,
    target: Pick | None = None,
    calibration_samples: int = 512,
    seed: int = 0,
) -> Splits:
    """Take the samples of a Lightning DataModule, batched by its loaders' own ``collate_fn``.

    Held out are its test samples, or those of validation where it has no test. Calibration samples are of validation
    where it has both, since those are not augmented, else of training.

    Args:
        module: A ``LightningDataModule``; prepared and set up here.
        inputs: Where a batch has the model's inputs; by default batches are ``(inputs, target)``.
        target: Where it has the targets; None, with ``inputs``: samples are inputs alone.
        calibration_samples: How many.
        seed: Draws them.

    Raises:
        ConfigError: If this is no DataModule, or it has no training or no other samples, several loaders of a kind, or
            samples without indices.
    """
    if not all(hasattr(module, name) for name in ("prepare_data", "setup", "train_dataloader")):
        raise ConfigError(f"the data module must be a LightningDataModule; got {type(module).__name__}")
    module.prepare_data()
    found = {}
    for stage, kind in (("fit", "train"), ("validate", "val"), ("test", "test")):
        if _has(module, f"{kind}_dataloader"):
            module.setup(stage)
            found[kind] = _samples(getattr(module, f"{kind}_dataloader")(), kind, inputs, target)
    if "train" not in found or len(found) < 2:
        raise ConfigError(
            f"the data module {type(module).__name__} must have train_dataloader, and test_dataloader or "
            f"val_dataloader; it has {', '.join(f'{kind}_dataloader' for kind in found) or 'none'}"
        )
    heldout = found.get("test", found.get("val"))
    unaugmented = found["val"] if "val" in found and "test" in found else found["train"]
    chosen, _ = drawn(len(unaugmented), calibration_samples, seed)
    return splits(found["train"], heldout, calibration=_some(unaugmented, chosen))


class Collated(Dataset[Any]):
    """Samples with a loader's own way to make batches.

    Args:
        samples: Map-style.
        collate: Makes a batch of a list of samples.
        inputs: Where a batch has the model's inputs; None: the batch is what a task takes.
        target: Where it has the targets; None: there are none.
    """

    def __init__(
        self, samples: MapStyle, collate: Callable[[list[Any]], Any], inputs: Pick | None, target: Pick | None
    ) -> None:
        self._samples, self._collate, self._inputs, self._target = samples, collate, inputs, target

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        """Return a sample, without a batch axis."""
        return pytrees.map_batched(lambda value: value[0] if value.ndim else value, self.__getitems__([index]))

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """Return samples as one batch."""
        batch = self._collate([self._samples[index] for index in indices])
        if self._inputs is None:
            # A loader's batch may be a list of inputs and target; a task's is a tuple.
            return tuple(batch) if isinstance(batch, list) else batch
        given = picked(batch, self._inputs, "a batch")
        return given if self._target is None else (given, picked(batch, self._target, "a batch"))


def _some(samples: MapStyle, indices: Sequence[int]) -> Any:
    return Subset(cast(Samples, samples), indices)


def _has(module: Any, method: str) -> bool:
    """Whether a module has a loader of its own: Lightning's base class has all of them, which raise."""
    if method in vars(module):
        return True
    definer = next((cls for cls in type(module).__mro__ if method in vars(cls)), None)
    return definer is not None and definer.__module__.partition(".")[0] not in _LIGHTNING


def _samples(loader: Any, kind: str, inputs: Pick | None, target: Pick | None) -> MapStyle:
    if not isinstance(loader, DataLoader):
        raise ConfigError(
            f"{kind}_dataloader must give one torch.utils.data.DataLoader; got {type(loader).__name__}. Make the task "
            "of the data sets themselves: sekron_edge.data.splits"
        )
    if isinstance(loader.dataset, IterableDataset):
        raise ConfigError(
            f"the {kind} samples must have indices; {type(loader.dataset).__name__} only gives one after another"
        )
    samples = cast(MapStyle, loader.dataset)
    if loader.collate_fn is default_collate and inputs is None:
        return samples
    return Collated(samples, loader.collate_fn, inputs, target)
