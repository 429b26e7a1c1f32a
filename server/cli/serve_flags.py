"""Makes every setting a flag of `overtone serve`, from the settings' fields.

Values stay text here: settings.py checks them, names a bad one, and has the defaults.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from server.settings import Settings

#: Secrets are no flags: all users of a machine can read a process's arguments.
_ENVIRONMENT_ONLY = {"api_keys", "registry_password"}


def with_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with a parameter for every setting; those not given are None.

    `function` takes them as keywords, beside its own parameters.
    """
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    flags = [_parameter(name) for name in Settings.model_fields if name not in _ENVIRONMENT_ONLY]
    function.__signature__ = inspect.Signature([*flags, *own])  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in [*flags, *own]}
    return function


def _parameter(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    is_switch = field.annotation is bool
    shown = (
        "" if field.is_required() or field.default in (None, ()) else f" Default: {field.default}."
    )
    option = typer.Option(help=f"{field.description}{shown}", show_default=False)
    kind = bool if is_switch else str
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=None,
        annotation=Annotated[kind | None, option],
    )
