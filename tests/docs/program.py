"""The real program's commands, to parse a documented one as a shell would hand it over."""

import argparse
import shlex
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import typer

from bench.command import run
from overtone_client.cli import app


class Parsed(Exception):
    """A benchmark has read its options, and would begin."""


@cache
def tree() -> dict[str, Any]:
    """Return every command by its words, groups with theirs."""
    root = typer.main.get_command(app)
    return {"": root, **dict(_below(root, ""))}


def _below(group: Any, words: str) -> Iterator[tuple[str, Any]]:
    context = group.context_class(group)
    for name in group.list_commands(context):
        command = _real(group.get_command(context, name), name)
        yield f"{words} {name}".strip(), command
        if hasattr(command, "list_commands"):
            yield from _below(command, f"{words} {name}".strip())


def _real(command: Any, name: str) -> Any:
    """Return the command that stands behind one that is loaded when it is called."""
    return command.make_context(name, [], resilient_parsing=True).command


def arguments(command: str) -> list[str]:
    """Return a documented command's words behind the program's name."""
    words = shlex.split(command)
    if words[0] == "overtone" or words[:2] == ["./run", "overtone"]:
        return words[words.index("overtone") + 1 :]
    return words[1:]


def command_of(words: list[str], commands: dict[str, Any]) -> str:
    """Return the longest name of a command that the words begin with; empty if none does."""
    names = (name for name in commands if words[: len(name.split())] == name.split())
    return max(names, key=len, default="")


def parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a whole command's options and arguments, and stop before it does anything.

    Raises:
        typer.TyperException: it is not one of this program's.
        SystemExit: a benchmark does not have such an option.
    """
    words, found, context = arguments(command), typer.main.get_command(app), None
    name = "overtone"
    with suppress(typer.Exit):  # --help
        while hasattr(found, "list_commands"):
            context = found.make_context(name, words, parent=context)
            rest = [*context._protected_args, *context.args]
            name, found, words = found.resolve_command(context, rest)
            found = _real(found, name)
        context = found.make_context(name, words, parent=context)
        if context.parent.info_name == "bench":
            _parse_bench(name, context.args, monkeypatch)


def _parse_bench(name: str, given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    read = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *values: Any) -> None:
        read(self, *values)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Parsed):
            run(name, given)


def options(command: Any) -> set[str]:
    """Return a command's own flags."""
    return {flag for p in command.params for flag in [*p.opts, *p.secondary_opts]}
