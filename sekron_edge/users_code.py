"""The line of the user's own code that an error, or an operator of a graph, comes from."""

from __future__ import annotations

import re
import sysconfig
import traceback
from pathlib import Path

import torch

_OWN = Path(__file__).parent
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def line_of(error: BaseException) -> str | None:
    """Return the file and line of the last frame of an error that is the user's, as ``net.py, line 7``.

    That is a frame in neither PyTorch, nor this package, nor Python's library. None where there is none.
    """
    frames = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    return _last(frames)


def line_in(stack: str) -> str | None:
    """Return the file and line of the last frame that is the user's, from a traceback as text."""
    return _last([(match["file"], int(match["line"])) for match in _FRAME.finditer(stack)])


def _last(frames: list[tuple[str, int]]) -> str | None:
    own = [f"{file}, line {line}" for file, line in frames if _is_users(file)]
    return own[-1] if own else None


def _is_users(file: str) -> bool:
    if file.startswith("<"):  # <string> and <frozen ...>
        return False
    path = Path(file)
    if path.is_relative_to(_OWN) or path.is_relative_to(Path(torch.__file__).parent):
        return False
    return "site-packages" in path.parts or not path.is_relative_to(sysconfig.get_path("stdlib"))
