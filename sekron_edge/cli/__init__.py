"""The command line: parses, calls the pipeline, prints. Importing it imports neither torch nor any SDK."""

from sekron_edge.cli._app import main
from sekron_edge.cli._console import ConsoleProgress, print_table

__all__ = ["ConsoleProgress", "main", "print_table"]
