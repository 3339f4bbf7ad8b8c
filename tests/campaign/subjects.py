"""What faults happen to: files as they come from users, strangers, boards and the cache, and what is done with each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from random import Random
from typing import Any

from sekron_edge.errors import SekronEdgeError

Alter = Callable[[bytes, Random], bytes]


class Accepting(Enum):
    """When it is right that a damaged thing is used."""

    NEVER = "never"
    """A hash or a signature says that it is not what it was."""
    UNCHANGED = "if the result is as before"
    """A damaged copy is made again."""
    SOUND = "if the result is sound"
    """Nobody can tell that it was something else: it must be what the form promises."""


@dataclass(frozen=True)
class Subject:
    """Something in a folder that can be damaged, and used.

    Attributes:
        victims: Files, one of which is altered each time; they are put back after.
        alter: How.
        use: What the product does with it; its result.
        accepting: When it is right that nothing is refused.
        sound: Whether a result is one, where a damaged thing may be used; it raises or returns False if not.
        after: What whoever altered a file does next, as to hash it again.
        harm: Instead of altering a victim: anything else that is done to the folder; undone by ``undo``.
        refusals: What may be raised.
        ours: Folders in which files may appear: a cache.
    """

    folder: Path
    use: Callable[[], Any]
    victims: tuple[Path, ...] = ()
    alter: Alter | None = None
    accepting: Accepting = Accepting.SOUND
    sound: Callable[[Any], bool] = lambda _: True
    after: Callable[[Path], None] = lambda _: None
    harm: Callable[[Random], None] | None = None
    undo: Callable[[], None] = lambda: None
    refusals: tuple[type[BaseException], ...] = (SekronEdgeError,)
    ours: tuple[Path, ...] = ()
    whole: Mapping[Path, bytes] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole", {path: path.read_bytes() for path in self.victims} | self.contents())

    def contents(self) -> dict[Path, bytes]:
        """Return all that is in the folder, but for what may appear there."""
        return {
            path: path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            for path in sorted(self.folder.rglob("*"))
            if not path.is_dir() and not any(path.is_relative_to(folder) for folder in self.ours)
        }

    def damage(self, drawn: Random) -> None:
        """Let one thing go wrong."""
        if self.harm is not None:
            self.harm(drawn)
            return
        assert self.alter is not None
        victim = drawn.choice(self.victims)
        victim.write_bytes(self.alter(self.whole[victim], drawn))
        self.after(victim)

    def mend(self) -> None:
        """Put everything back, and take away what was left behind."""
        self.undo()
        for path in self.contents().keys() - self.whole.keys():
            path.unlink()
        for path, content in self.whole.items():
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                path.unlink(missing_ok=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
