"""How a long job reports its progress."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

_LOG = logging.getLogger("sekron_edge")


class Progress(Protocol):
    """Receives what a job reports; the command line shows it.

    Attributes:
        interactive: Whether somebody watches it on a terminal, so that others may draw bars there.
    """

    interactive: bool

    def say(self, text: str) -> None:
        """Report what was done, or found."""
        ...

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Report what is done within the block, which takes more than a moment."""
        ...

    def step(self, what: str, done: int, total: int) -> None:
        """Report how far something has come."""
        ...


class LogProgress:
    """Writes to the logger ``sekron_edge``, which the application may show."""

    interactive = False

    def say(self, text: str) -> None:
        """Log at level INFO."""
        _LOG.info(text)

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Log at level INFO."""
        self.say(what)
        return nullcontext()

    def step(self, what: str, done: int, total: int) -> None:
        """Log at level DEBUG."""
        _LOG.debug("%s: %d of %d", what, done, total)
