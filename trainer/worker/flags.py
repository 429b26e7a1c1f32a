"""The flags of `overtone worker`: the fields of WorkerSettings that hold a typer option."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from trainer.process.settings import WorkerSettings


def with_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the command with a parameter for each flag; it receives them as keywords.

    The command's own keyword parameters come last.
    """
    own = inspect.signature(function).parameters.values()
    first = [one for one in own if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    last = [one for one in own if one.kind is inspect.Parameter.KEYWORD_ONLY]
    every = [*first, *_flags(), *last]
    function.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return function


def _flags() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.default,
            annotation=Annotated[field.annotation, option],
        )
        for name, field in WorkerSettings.model_fields.items()
        for option in _options(field)
    ]


def _options(field: FieldInfo) -> list[OptionInfo]:
    return [one for one in field.metadata if isinstance(one, OptionInfo)]
