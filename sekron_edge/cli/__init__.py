"""The command line: it parses, calls and prints. Results go to stdout, logs to stderr."""

from sekron_edge.cli._app import main

__all__ = ["main"]
