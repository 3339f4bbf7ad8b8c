"""Options for budgets: one for each resource of the table that plans are solved for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Annotated

import typer

from sekron_edge.budget import planned_resources


def with_limits(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, in place of its parameter ``limits``, an option for each resource that plans are solved for.

    The command gets a mapping from the resources that were limited to what was given.
    """
    options = {
        resource.name: Annotated[
            str | None,
            typer.Option(help=f'{resource.meaning}, instead of the config\'s limit: a number, or "0.5x" of dense.'),
        ]
        for resource in planned_resources()
    }

    @wraps(command)
    def wrapper(**given: object) -> None:
        limits = {name: given.pop(name) for name in options}
        command(limits={name: limit for name, limit in limits.items() if limit is not None}, **given)

    parameters = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        replaced = options if parameter.name == "limits" else {parameter.name: parameter.annotation}
        default = None if parameter.name == "limits" else parameter.default
        parameters += [parameter.replace(name=n, annotation=a, default=default) for n, a in replaced.items()]
    wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return wrapper
