"""Which files of a folder or a zip are training files, which are held out, and which are neither."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from sekron_edge.data._files import FileTree
from sekron_edge.data._skipped import OTHER_KIND, Skipped, skipped
from sekron_edge.errors import DataError

TRAIN_FOLDERS = ("train", "training")
HELDOUT_FOLDERS = ("test", "testing", "val", "valid", "validation")

WhyNot = Callable[[str], str | None]
"""Says of a file's name inside its split why it is none of those that are wanted; None if it is one."""

_Files = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Splits:
    """Names of training and held-out files, each with its name inside its split: ``(inside, name)``.

    Attributes:
        train: Empty where the data have no training folder.
        heldout: Never empty.
        skipped: All other files, and why.
    """

    train: _Files
    heldout: _Files
    skipped: tuple[Skipped, ...]


def other_kind(suffixes: Iterable[str]) -> WhyNot:
    """Return the reason of files without one of these suffixes."""
    known = set(suffixes)
    return lambda inside: None if PurePosixPath(inside).suffix.lower() in known else OTHER_KIND


def split_files(
    tree: FileTree,
    *,
    train: str | None = None,
    heldout: str | None = None,
    why_not: WhyNot,
    form: str,
    top: Iterable[str] = (),
    moved: Callable[[str], str] = str,
) -> Splits:
    """Find the training and the held-out files.

    Args:
        tree: All files; folders around everything else are looked through.
        train: Folder of the training files; by default ``train`` or ``training``, and none if there is neither.
        heldout: Folder of the held-out files; by default the first of ``test``, ``testing``, ``val``, ``valid`` and
            ``validation`` with files that are wanted, else everything where there is no training folder. Folders by
            default may be spelled ``Train`` or ``TEST``.
        why_not: Decides which files are wanted.
        form: How files must be laid out, for the message.
        top: Folders that may stand above the splits.
        moved: Name in which the split's folder comes first, of a name where it may come later.

    Raises:
        DataError: If a folder that is asked for has no such files, or nothing is held out; says what is there instead.
    """
    folders = {*TRAIN_FOLDERS, *HELDOUT_FOLDERS, *top, *filter(None, (train, heldout))}
    names = [(moved(inside), name) for inside, name in _inside_one_folder(tree.names, folders, why_not)]
    spelled = {inside.split("/")[0] for inside, _ in names if "/" in inside}

    def all_in(folder: str) -> _Files:
        prefix = f"{folder.strip('/')}/"
        return tuple((inside.removeprefix(prefix), name) for inside, name in names if inside.startswith(prefix))

    def first(asked: str | None, usual: Sequence[str]) -> tuple[str, _Files]:
        """Return the folder with its files, of whatever kind; empty if there is none."""
        for folder in [each for one in usual for each in _spellings(one, spelled)] if asked is None else [asked]:
            found = all_in(folder)
            if any(why_not(inside) is None for inside, _ in found):
                return folder, found
        if asked is not None:
            there = _instead(all_in(asked), why_not)
            raise DataError(f"{tree.path} must have files in {asked}/: {form}; found {there}")
        return "", ()

    (train_folder, training), (heldout_folder, held) = first(train, TRAIN_FOLDERS), first(heldout, HELDOUT_FOLDERS)
    if not training and not held:
        held = tuple(names)
    wanted_training, wanted_held = (
        tuple(file for file in part if why_not(file[0]) is None) for part in (training, held)
    )
    if not wanted_held:
        found = "training files only" if training else _instead(names, why_not)
        raise DataError(
            f"{tree.path} must hold {form}, in train/ and in test/ or val/, or held-out ones alone; found {found}. "
            "Other folders are named by data.train and data.heldout"
        )
    reasons: dict[str, list[str]] = {}
    inside_of = {name: inside for part in (training, held) for inside, name in part}
    used = " and ".join(f"{folder}/" for folder in (train_folder, heldout_folder) if folder)
    for _, name in names:
        reason = why_not(inside_of[name]) if name in inside_of else f"outside of {used}"
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    return Splits(wanted_training, wanted_held, (*skipped(reasons), *tree.skipped))


def _spellings(folder: str, spelled: Iterable[str]) -> list[str]:
    """Return a folder's name, and then what differs from it by capitals alone and is there."""
    return [folder, *sorted(each for each in spelled if each != folder and each.lower() == folder)]


def _instead(files: Iterable[tuple[str, str]], why_not: WhyNot) -> str:
    """Say what is there in the place of the files that are wanted."""
    reasons: dict[str, list[str]] = {}
    for inside, name in files:
        reasons.setdefault(why_not(inside) or "", []).append(name)
    return "; ".join(map(str, skipped(reasons))) or "none"


def _inside_one_folder(names: Sequence[str], known: Iterable[str], why_not: WhyNot) -> list[tuple[str, str]]:
    """Return ``(name inside the root, name)``; the root is below folders that hold everything and are not known.

    Loose files that are not wanted, as a README, may lie beside.
    """
    parts = [PurePosixPath(name).parts for name in names]
    firsts = {folder.split("/")[0].lower() for folder in known}
    inner = [part for part in parts if len(part) > 1 or why_not(part[0]) is None]
    root: tuple[str, ...] = ()
    while inner and len({part[len(root)] if len(part) > len(root) + 1 else None for part in inner}) == 1:
        common = inner[0][len(root)]
        if len(inner[0]) == len(root) + 1 or common.lower() in firsts:
            break
        root = (*root, common)
        # A class of images may be all that there is: only folders around splits are looked through.
        if any(part[len(root)].lower() in firsts for part in inner if len(part) > len(root) + 1):
            return [("/".join(part[len(root) :]) if part[: len(root)] == root else name, name)
                    for part, name in zip(parts, names, strict=True)]  # fmt: skip
    return [(name, name) for name in names]
