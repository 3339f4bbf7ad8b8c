"""The layers that a user lets the planner change, by patterns of their names."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from fnmatch import fnmatchcase

from sekron_edge.errors import ConfigError
from sekron_edge.settings import Settings


class LayerSelection(Settings):
    """Patterns of layers' names, with ``*`` for anything, dots included, and ``?`` for one character.

    Attributes:
        only: Layers that may be compressed; all if there is no pattern.
        keep: Layers that stay as they are, whatever ``only`` says.
    """

    only: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def refused(self, names: Collection[str]) -> dict[str, str]:
        """Return why layers stay as they are, by name, for those that these patterns leave out.

        Args:
            names: Of all layers with weights.

        Raises:
            ConfigError: If a pattern is the name of none; names those that are near.
        """
        for key, patterns in (("only", self.only), ("keep", self.keep)):
            for pattern in patterns:
                if not any(fnmatchcase(name, pattern) for name in names):
                    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
                    hint = f"near it: {', '.join(near)}" if near else f"layers are named like {next(iter(names), '')!r}"
                    raise ConfigError(f"plan.{key}: no layer is named {pattern!r}; {hint}")
        reasons = {}
        for name in names:
            kept = next((pattern for pattern in self.keep if fnmatchcase(name, pattern)), None)
            if kept is not None:
                reasons[name] = f"kept as it is: plan.keep has {kept!r}"
            elif self.only and not any(fnmatchcase(name, pattern) for pattern in self.only):
                reasons[name] = "kept as it is: no pattern of plan.only is its name"
        return reasons


EVERY_LAYER = LayerSelection()
