"""``python -m sekron_edge`` is the command line."""

from sekron_edge.cli import main

main()
