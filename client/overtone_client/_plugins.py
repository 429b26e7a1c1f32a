"""The program's group of commands: its own, and the application's, which are loaded when called.

The application registers its commands as entry points of the group `overtone.commands`; each
value is a plain function with typer's annotations, or a `typer.Typer` with commands of its own.
Importing one imports torch, so neither `overtone list` nor `overtone --help` does it.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ._examples import attach, epilog
from ._session import INTERRUPTED, USAGE_ERROR, report, report_interruption, report_usage
from .errors import OvertoneError

GROUP = "overtone.commands"
PANEL = "The application: server and trainer"
APPLICATION = {  # shown in the help without importing anything, installed or not
    "serve": "Start the inference server.",
    "worker": "Start a trainer worker.",
    "demo": "Start everything with a small base, and say what to try.",
    "bench": "Run the product's own benchmarks.",
    "convert": "Turn an adapter into another format or another method.",
    "inspect": "Show what an adapter holds and what it does to each layer.",
    "backup": "Copy the registry and all that it names to a folder.",
    "restore": "Put back what a backup has.",
    "gc": "List or remove what lies in the store and no record names.",
    "store": "Show to which registry a store belongs, or change it.",
    "tenant": "List tenants, or hand what a tenant has to another name.",
    "doctor": "Check whether this machine is fit, and say what to do.",
}


class Unloadable(typer.TyperException):
    """A command of the application that is not installed or cannot be imported."""

    exit_code = USAGE_ERROR


class LazyCommand(TyperCommand):
    """A command that is imported when it is called or its own help is asked for."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        command = _loaded(str(self.name))
        return command.make_context(info_name, args, parent, **extra)


class CommandGroup(TyperGroup):
    """The root group: global options may stand anywhere, errors are one line, commands are lazy."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        own = super().get_command(ctx, cmd_name)
        if own is None and cmd_name in _application():
            help_text = APPLICATION.get(cmd_name, "Added by an installed package.")
            return LazyCommand(cmd_name, help=help_text, rich_help_panel=PANEL)
        return own

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *_application()]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoisted(args, set(self.commands)))

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run and exit: 0, 1 for the server's errors, 2 for usage, 130 for Ctrl-C."""
        arguments = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        as_json = "--json" in arguments
        try:
            result = super().main(arguments, *rest, **extra)
        except OvertoneError as error:
            result = report(error, as_json)
        except typer.TyperException as error:
            result = report_usage(error.format_message(), _usage_step(error), as_json)
        except typer.Abort:
            result = INTERRUPTED
        if result == INTERRUPTED:  # by Ctrl-C, which typer turns into this
            report_interruption(as_json)
        sys.exit(result if isinstance(result, int) else 0)


def hoisted(args: list[str], commands: set[str]) -> list[str]:
    """The arguments with the global options that follow one of our commands moved before it.

    Commands of the application are left alone: their own `--json` or `--url` is theirs. Where a
    global option lacks its value, it is all that is left, so that this is what is said: before the
    command it would take the command's name.
    """
    front: list[str] = []
    back: list[str] = []
    rest = iter(args)
    lacking: list[str] = []
    for argument in rest:
        if argument == "--":
            back += [argument, *rest]
        elif argument == "--json" or argument.startswith(("--url=", "--api-key=", "--acting-for=")):
            front.append(argument)
        elif argument in ("--url", "--api-key", "--acting-for"):
            value = list(islice(rest, 1))
            lacking = [] if value else [argument]
            front += [argument, *value]
        else:
            back.append(argument)
    is_ours = bool(back) and back[0] in commands
    return (lacking or front + back) if is_ours else args


def _application() -> dict[str, EntryPoint | None]:
    """The application's commands by name; None for one that is not installed."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    return {**dict.fromkeys(APPLICATION), **found}


def _loaded(name: str) -> Any:
    entry = _application()[name]
    if entry is None:
        raise Unloadable(
            f"`overtone {name}` belongs to the application, which is not installed here, or in a "
            "version without it. Install it with: pip install --upgrade overtone"
        )
    try:
        function = entry.load()
    except Exception as error:  # a broken torch raises anything while it is imported
        raise Unloadable(
            f"`overtone {name}` cannot be loaded from {entry.value}: {error}. "
            "Install the application again with: pip install --upgrade overtone"
        ) from error
    if isinstance(function, typer.Typer):
        return typer.main.get_command(attach(function, name, is_ours=False))
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, epilog=epilog(name, is_ours=False))(function)
    return typer.main.get_command(single)


def _usage_step(error: typer.TyperException) -> str:
    if isinstance(error, Unloadable):
        return "`overtone --help` shows the other commands"
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path if context else 'overtone'} --help`"
