"""docs/reference/settings.md, from `server.settings.Settings` and the worker's options."""

from collections.abc import Iterator

import typer
from markdown import head, plain, shown, table
from pydantic.fields import FieldInfo

from server.cli.commands import serve
from server.settings import Settings
from trainer.worker.commands import worker

LEARN = """
Here is every setting of `overtone serve` and `overtone worker`: its variable, its flag where there
is one, its default, and what it means. A flag wins over the environment.
[Operations](../operations.md) says what to do with them.
"""


def page() -> Iterator[str]:
    """Yield the page's lines."""
    yield from head("Settings", "the code's settings", LEARN)
    yield "## The server\n"
    rows = [_row(name, field) for name, field in Settings.model_fields.items()]
    yield from table(("variable", "flag", "default", "means"), rows)
    yield "## The worker\n"
    yield from table(("variable", "flag", "default", "means"), _of_worker())


def _row(name: str, field: FieldInfo) -> tuple[str, ...]:
    flag = f"`--{name.replace('_', '-')}`" if name in serve.__annotations__ else ""
    said = field.description or ""
    return f"`OVERTONE_{name.upper()}`", flag, _default(name, field), said


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    return shown(field.default, are_bytes=name.endswith("_bytes"))


def _of_worker() -> Iterator[tuple[str, ...]]:
    app = typer.Typer(add_completion=False)
    app.command()(worker)
    for option in typer.main.get_command(app).params:
        flag = next(iter(option.opts))
        if option.name != "help" and flag.startswith("--"):
            variable = f"`{option.envvar}`" if getattr(option, "envvar", None) else ""
            said = plain(getattr(option, "help", "") or "")
            yield (
                variable,
                f"`{flag}`",
                shown(option.default, (option.name or "").endswith("bytes")),
                said,
            )
