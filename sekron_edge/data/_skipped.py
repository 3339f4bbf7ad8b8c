"""Files of a data set that are not read, and why: one line for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

HIDDEN = "hidden or a system's own"
OTHER_KIND = "of other kinds"
NO_FILE = "links that lead nowhere or back, or no files"

# Suffixes that the line names.
_NAMED = 4


@dataclass(frozen=True)
class Skipped:
    """Files that are not read for one reason.

    Attributes:
        why: What they are, after their number: ``12 hidden``.
        names: In the folder or the zip; never empty.
    """

    why: str
    names: tuple[str, ...]

    def without(self, used: Collection[str]) -> Skipped | None:
        """Return the same but for some files; None if no other is left."""
        left = tuple(name for name in self.names if name not in used)
        return Skipped(self.why, left) if left else None

    def __str__(self) -> str:
        suffixes = f" ({self._suffixes()})" if self.why == OTHER_KIND else ""
        return f"{len(self.names):,} {self.why}{suffixes}, as {self.names[0]}"

    def _suffixes(self) -> str:
        counts = Counter(PurePosixPath(name).suffix.lower() or "without a suffix" for name in self.names).most_common()
        named = [f"{suffix} {count:,}" for suffix, count in counts[:_NAMED]]
        return ", ".join([*named, *(["..."] if len(counts) > _NAMED else [])])


def skipped(reasons: Mapping[str, Iterable[str]]) -> tuple[Skipped, ...]:
    """Return what is skipped, from its names by reason; reasons without names are left out."""
    listed = ((why, tuple(sorted(names))) for why, names in reasons.items())
    return tuple(Skipped(why, names) for why, names in listed if names)
