"""Output of commands: results on standard output, everything else on standard error."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import progress as rich_progress
from rich.console import Console
from rich.table import Column, Table

_WIDEST = 2000


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; outside of a terminal, as wide as it needs to be."""
    # On a narrow terminal names are folded: an ellipsis would hide their differences.
    table = Table(*(Column(column, overflow="fold") for column in columns))
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        unbounded = console.options.update(max_width=_WIDEST)
        console = Console(width=max(console.width, console.measure(table, options=unbounded).maximum))
    console.print(table, markup=False)


class ConsoleProgress:
    """Reports what a job does on standard error: a line for each step, a bar or a spinner for long ones."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._started = time.monotonic()
        self._bar: rich_progress.Progress | None = None
        self.interactive = self._console.is_terminal

    def say(self, text: str) -> None:
        """Print a line, with the time since the start."""
        seconds = int(time.monotonic() - self._started)
        self._console.print(
            f"{seconds // 60:3d}:{seconds % 60:02d}  {text}", markup=False, highlight=False, soft_wrap=True
        )

    @contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Show a spinner on a terminal; print a line elsewhere."""
        if not self.interactive:
            self.say(what)
            yield
            return
        with self._console.status(what):
            yield

    def step(self, what: str, done: int, total: int) -> None:
        """Move a bar on a terminal."""
        if not self.interactive:
            return
        if self._bar is None:
            self._bar = rich_progress.Progress(console=self._console, transient=True)
            self._bar.add_task(what, total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done)
        if done >= total:
            self._bar.stop()
            self._bar = None
