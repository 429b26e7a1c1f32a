"""The program `overtone`: its global options, and where each command is found."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from . import _adapter_commands as adapters
from . import _answer_commands as answers
from . import _batch_commands as batches
from . import _encoder_commands as encoders
from . import _file_commands as files
from . import _key_commands as keys
from . import _rerank_command as pairs
from . import _residency_commands as residency
from . import _tenant_commands as tenants
from . import _training_commands as training
from . import _worker_commands as workers
from ._compare_command import compare
from ._connection import DEFAULT_URL
from ._evaluate_command import evaluate
from ._examples import attach, epilog
from ._layers_command import layers
from ._plugins import CommandGroup
from ._session import Session
from ._share_command import share
from ._status_command import status
from ._top_command import top

app = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)

#: Panel of the help -> its commands; a group of commands is one with a name of its own.
COMMANDS: dict[str, dict[str, Callable[..., None] | typer.Typer]] = {
    "Ask": {
        "chat": answers.chat,
        "complete": answers.complete,
        "compare": compare,
        "classify": encoders.classify,
        "embed": encoders.embed,
        "rerank": pairs.rerank,
        "score": pairs.score,
        "models": answers.models,
        "tokenize": encoders.tokenize,
        "detokenize": encoders.detokenize,
        "batch": batches.batch,
    },
    "Adapters": {
        "upload": adapters.upload,
        "list": adapters.list_adapters,
        "show": adapters.show,
        "layers": layers,
        "download": residency.download,
        "alias": adapters.alias,
        "rollback": adapters.rollback,
        "share": share,
        "delete": adapters.delete,
        "warm": residency.warm,
        "pin": residency.pin,
        "unpin": residency.unpin,
    },
    "Training": {
        "train": training.train,
        "jobs": training.jobs,
        "job": training.job,
        "evaluate": evaluate,
        "reproduce": training.reproduce,
        "workers": workers.workers,
        "files": files.files,
    },
    "The server, its keys and tenants": {
        "status": status,
        "top": top,
        "keys": keys.keys,
        "tenants": tenants.tenants,
    },
}
for panel, commands in COMMANDS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(attach(command, name), name=name, rich_help_panel=panel)
        else:
            app.command(name, epilog=epilog(name), rich_help_panel=panel)(command)


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
