"""What a long job tells whoever waits for it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

_LOG = logging.getLogger("sekron_edge")


class Narrator(Protocol):
    """Is told what happens; the command line shows it."""

    shows_progress: bool

    def say(self, text: str) -> None:
        """Tell that something was done, or found."""
        ...

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Tell what is done within the block, which takes more than a moment."""
        ...

    def step(self, what: str, done: int, total: int) -> None:
        """Tell how far something has come."""
        ...


class LogNarrator:
    """Writes to the logger ``sekron_edge``, which the application may show."""

    shows_progress = False

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
