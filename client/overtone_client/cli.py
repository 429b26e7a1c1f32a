"""The program `overtone`: its global options, and where each command is found."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from . import _adapter_commands as adapters
from . import _answer_commands as answers
from . import _batch_commands as batches
from . import _key_commands as keys
from . import _rerank_command as pairs
from . import _tenant_commands as tenants
from . import _training_commands as training
from . import _worker_commands as workers
from ._connection import DEFAULT_URL
from ._evaluate_command import evaluate
from ._plugins import CommandGroup
from ._session import Session
from ._share_command import share
from ._top_command import top

app = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)

COMMANDS: dict[str, Callable[..., None]] = {
    "upload": adapters.upload,
    "list": adapters.list_adapters,
    "show": adapters.show,
    "delete": adapters.delete,
    "alias": adapters.alias,
    "rollback": adapters.rollback,
    "share": share,
    "models": answers.models,
    "chat": answers.chat,
    "complete": answers.complete,
    "compare": answers.compare,
    "rerank": pairs.rerank,
    "score": pairs.score,
    "train": training.train,
    "jobs": training.jobs,
    "job": training.job,
    "reproduce": training.reproduce,
    "evaluate": evaluate,
    "workers": workers.workers,
    "top": top,
}
for name, command in COMMANDS.items():
    app.command(name, epilog="--url, --api-key and --json may also stand after the command.")(
        command
    )
app.add_typer(batches.batch, name="batch")
app.add_typer(keys.keys, name="keys")
app.add_typer(tenants.tenants, name="tenants")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"overtone-client {version('overtone-client')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def overtone(
    ctx: typer.Context,
    url: Annotated[str, typer.Option(envvar="OVERTONE_URL", help="The server.")] = DEFAULT_URL,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="OVERTONE_API_KEY",
            help="The server's key, if it wants one. Other users see a flag, not the variable.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on standard output, for programs.")
    ] = False,
    acting_for: Annotated[
        str | None,
        typer.Option(
            envvar="OVERTONE_ACTING_FOR",
            metavar="TENANT",
            help="With an operator's key: for this tenant; - stands for the operators.",
        ),
    ] = None,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Overtone: thousands of tiny adapters on one base model."""
    ctx.obj = Session(url, api_key or None, as_json, acting_for or None)
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help(), err=True)
        raise typer.Exit(2)


def main() -> None:
    """Run the program and exit."""
    app(prog_name="overtone")
