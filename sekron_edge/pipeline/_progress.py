"""How a long job reports its progress."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

_LOG = logging.getLogger("sekron_edge")


class Progress(Protocol):
    """Receives the reports of a job; the command line shows them.

    Attributes:
        interactive: Whether reports are on a terminal, where others may draw bars.
    """

    interactive: bool

    def say(self, text: str) -> None:
        """Report a finished step, or a result."""
        ...

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Report the work within the block, which takes more than a moment."""
        ...

    def step(self, what: str, done: int, total: int) -> None:
        """Report the progress of something."""
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
