"""What was read of a folder or a zip, and what was not, a line each for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from sekron_edge.data._copies import copies
from sekron_edge.data._files import FileTree
from sekron_edge.data._preprocessing import form_of
from sekron_edge.data._skipped import Skipped
from sekron_edge.errors import DataError

# Classes that are named, and images whose headers are read.
_NAMED, _LOOKED_AT = 6, 64


def reading_notes(
    tree: FileTree,
    what: str,
    train: Sequence[str],
    heldout: Sequence[str],
    *,
    skipped: Sequence[Skipped] = (),
    used: Collection[str] = (),
    classes: Sequence[str] = (),
    are_images: bool = True,
    set_aside: bool = False,
) -> tuple[str, ...]:
    """Describe what was read: how much of what, what was left out and why, and held-out files that are no new data.

    Args:
        tree: The files.
        what: They are, as ``images``.
        train: Names of the training files.
        heldout: Names of the held-out files.
        skipped: Files that are not read.
        used: Names of those among them that are read otherwise, as lists.
        classes: Names of those that the data show.
        are_images: Whether the forms of some are worth looking at.
        set_aside: Whether the training files are held-out ones that were set aside.

    Raises:
        DataError: If every held-out file is a copy of a training file.
    """
    counts = f"{len(train):,} training and {len(heldout):,} held-out {what}"
    named = f" of {_classes(classes)}" if classes else ""
    aside = "; nothing is said to be training data, so some were set aside" if set_aside else ""
    forms = _forms(tree, [*train, *heldout]) if are_images else ""
    left = "; ".join(str(each) for one in skipped if (each := one.without(used)) is not None)
    lines = [f"{tree.path}: {counts}{named}{forms}{aside}", f"{tree.path}: not read: {left}" if left else ""]
    return tuple(filter(None, [*lines, _copies(tree, what, train, heldout)]))


def _classes(names: Sequence[str]) -> str:
    shown = [*names[: _NAMED - 1], "...", names[-1]] if len(names) > _NAMED else names
    return f"{len(names):,} class{'es' * (len(names) > 1)} ({', '.join(shown)})"


def _forms(tree: FileTree, names: Sequence[str]) -> str:
    """Return sizes and modes of some images; a broken one is an error where it is decoded, with its reason."""
    chosen = names[:: -(-len(names) // _LOOKED_AT)]
    forms = [form for name in chosen if (form := form_of(tree.read(name))) is not None]
    if not forms:
        return ""
    sizes = sorted({form[:2] for form in forms}, key=lambda size: (size[0] * size[1], size))
    between = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys([sizes[0], sizes[-1]]))
    modes = Counter(mode for _, _, mode in forms).most_common()
    shown = modes[0][0] if len(modes) == 1 else ", ".join(f"{mode} {count}" for mode, count in modes)
    return f"; {between} pixels, {shown} in the {len(forms)} looked at"


def _copies(tree: FileTree, what: str, train: Sequence[str], heldout: Sequence[str]) -> str:
    found = copies(tree, train, heldout)
    if not found.of:
        return ""
    held, known = next(iter(sorted(found.of.items())))
    example = f"as {held} of {known}"
    # A few copies are common, and change a figure a little: a warning. Where all are copies nothing is held out at all,
    # and every figure that the job promises would be one of training data.
    if len(found.of) == len(heldout):
        raise DataError(
            f"{tree.path}: every held-out file is a copy of a training file, {example}: nothing is held out. Give "
            "other held-out data, or held-out data alone: some of it then becomes training data"
        )
    total = f"{found.compared:,} held-out {what}" + f" of {len(heldout):,} that were compared" * (
        found.compared < len(heldout)
    )
    return (
        f"warning: {tree.path}: {len(found.of):,} of {total} are copies of training data, {example}. Figures "
        "on held-out data, as the accuracy that is promised, are too good for that: remove them from one of the two"
    )
