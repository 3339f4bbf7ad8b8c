"""Who says what in which file, and who is held out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import torch

from sekron_edge.data._files import FileTree
from sekron_edge.data._skipped import OTHER_KIND, Skipped
from sekron_edge.data._split_files import split_files
from sekron_edge.documents import decoded
from sekron_edge.errors import ConfigError, DataError

_SUFFIXES = {".wav", ".wave"}


@dataclass(frozen=True)
class Recording:
    """A file, its label, and its speaker where file names tell."""

    name: str
    label: str
    speaker: str | None


@dataclass(frozen=True)
class Recordings:
    """Recordings for training, and held-out ones; no training recordings where nothing says which they are.

    ``skipped`` are the files that are neither.
    """

    train: tuple[Recording, ...]
    heldout: tuple[Recording, ...]
    skipped: tuple[Skipped, ...] = ()


def recordings(
    tree: FileTree,
    names: str,
    *,
    train: str | None,
    heldout: str | None,
    speakers: tuple[str, ...] | None,
    listed: str | None,
    seed: int,
) -> Recordings:
    """Find recordings, and hold out those of given speakers, of a list, of a folder, or of a fifth of the speakers.

    Args:
        tree: The files. Folders whose names begin with ``_`` hold no labelled sounds.
        names: What files are called, with ``{label}``, ``{speaker}`` and any other word for what may be anything.
        train: Folder of the training files.
        heldout: Folder of the held-out files.
        speakers: Speakers to hold out.
        listed: File in the tree with the names of those to hold out.
        seed: Chooses speakers to hold out, where neither folders nor the arguments say who is.

    Raises:
        ConfigError: If more than one of these is asked for, or a name lacks the speaker that is needed.
        DataError: If files are absent or not called so.
    """
    asked = [
        key for key, value in (("heldout", heldout), ("heldout_speakers", speakers), ("heldout_list", listed)) if value
    ]
    if len(asked) > 1:
        raise ConfigError(f"data.{' and data.'.join(asked)} exclude each other: give one of them")
    pattern = _pattern(names)
    with_speaker = "speaker" in pattern.groupindex
    if speakers and not with_speaker:
        raise ConfigError(f"data.heldout_speakers needs {{speaker}} in data.names; got {names!r}")
    splits = split_files(tree, train=train, heldout=heldout, why_not=_why_not, form="WAV files")
    found = _read(splits.heldout, pattern, names, tree)
    training = _read(splits.train, pattern, names, tree)
    every = (*training, *found)
    if speakers:
        if unknown := sorted(set(speakers) - {str(each.speaker) for each in every}):
            known = sorted({str(each.speaker) for each in every})
            raise DataError(f"{tree.path} has no speaker {unknown[0]!r}; its speakers are {', '.join(known[:20])}")
        return _held(every, {each.name for each in every if each.speaker in speakers}, splits.skipped)
    if listed:
        return _held(every, _listed(tree, listed, every), splits.skipped)
    if training or not with_speaker:
        return Recordings(training, found, splits.skipped)
    present = sorted({str(each.speaker) for each in found})
    order = torch.randperm(len(present), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen = {present[index] for index in order[: max(1, len(present) // 5)]}
    return _held(found, {each.name for each in found if each.speaker in chosen}, splits.skipped)


def _held(every: Iterable[Recording], names: set[str], skipped: tuple[Skipped, ...]) -> Recordings:
    parts: tuple[list[Recording], list[Recording]] = ([], [])
    for each in every:
        parts[each.name in names].append(each)
    if not all(parts):
        raise DataError("some sounds must be held out, and some must be left for training; one of the two has none")
    return Recordings(tuple(parts[0]), tuple(parts[1]), skipped)


def _why_not(inside: str) -> str | None:
    name = PurePosixPath(inside)
    if name.suffix.lower() not in _SUFFIXES:
        return OTHER_KIND
    return "in folders that begin with _" if any(part.startswith("_") for part in name.parts[:-1]) else None


def _pattern(names: str) -> re.Pattern[str]:
    """Return the pattern of file names in which ``{word}`` stands for anything.

    Raises:
        ConfigError: If a word stands there twice.
    """
    parts = re.split(r"\{(\w+)\}", names)
    try:
        return re.compile(
            "".join(f"(?P<{part}>.+?)" if place % 2 else re.escape(part) for place, part in enumerate(parts))
        )
    except re.error as error:
        raise ConfigError(f"data.names must hold words in braces, each once; got {names!r}: {error}") from error


def _read(
    files: Iterable[tuple[str, str]], pattern: re.Pattern[str], names: str, tree: FileTree
) -> tuple[Recording, ...]:
    found = []
    for inside, name in files:
        path = PurePosixPath(inside)
        match = pattern.fullmatch(path.stem)
        if match is None:
            raise DataError(f"{tree.shown(name)} is not called {names!r} (data.names); rename or remove it")
        words = match.groupdict()
        label = words.get("label")
        if label is None:
            if len(path.parts) < 2:
                raise DataError(
                    f"{tree.shown(name)} has no label: it is in no folder of a class, and data.names ({names!r}) has "
                    "no {label}; with {label}_{speaker}_{index}, say, a file's name has it"
                )
            label = path.parts[0]
        found.append(Recording(name, label, words.get("speaker")))
    return tuple(found)


def _listed(tree: FileTree, listed: str, every: Iterable[Recording]) -> set[str]:
    file = next((name for name in tree.names if name == listed or name.endswith(f"/{listed}")), None)
    if file is None:
        raise DataError(f"{tree.path} has no file {listed} (data.heldout_list)")
    lines = {line.strip() for line in decoded(tree.read(file), tree.shown(file), DataError).splitlines()} - {""}
    base = file.removesuffix(listed)
    names = {each.name for each in every}
    if unknown := sorted({base + line for line in lines} - names):
        raise DataError(f"{tree.shown(file)} names {unknown[0]!r}, which is no sound of {tree.path}")
    return {base + line for line in lines}
