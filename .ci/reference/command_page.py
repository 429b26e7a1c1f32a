"""docs/reference/commands.md, from the program's own help."""

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from markdown import head, plain, shown, table, wrapped

from overtone_client._examples import EXAMPLES
from overtone_client.cli import app

#: What an option takes that names nothing itself.
KINDS = {bool: "", Path: "a path", int: "a number", float: "a number"}
LEARN = """
Here is every command of `overtone` with its arguments and options, as `--help` shows them.
`--url`, `--api-key` and `--json` may also stand behind the command. Exit codes: 0, 1 for the
server's errors, 2 for usage, 130 for Ctrl-C. [How-tos](../howto/train.md) show the commands at
work.
"""


def page() -> Iterator[str]:
    """Yield the page's lines."""
    yield from head("Command line", "the program's help", LEARN)
    root = typer.main.get_command(app)
    yield "## Options of all commands\n"
    yield from _options(root)
    yield from _below(root, "overtone")


def _below(group: Any, words: str) -> Iterator[str]:
    context = group.context_class(group)
    for name in group.list_commands(context):
        command = _real(group.get_command(context, name), name)
        yield from _command(command, f"{words} {name}")
        if hasattr(command, "list_commands"):
            yield from _below(command, f"{words} {name}")


def _real(command: Any, name: str) -> Any:
    """Return the command that stands behind one that is loaded when it is called."""
    return command.make_context(name, [], resilient_parsing=True).command


def _command(command: Any, words: str) -> Iterator[str]:
    level = "##" if words.count(" ") == 1 else "###"
    yield f"{level} {words}\n"
    yield from wrapped(_prose(command.help or ""))
    if hasattr(command, "list_commands"):
        return
    if example := EXAMPLES.get(words.removeprefix("overtone ")):
        yield f"`{example}`\n"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    rows = [(f"`{_shown(p)}`", _said(p)) for p in arguments]
    yield from table(("argument", "means"), rows)
    yield from _options(command)


def _prose(text: str) -> str:
    """Return a help's text without what only a terminal shows."""
    return plain(re.sub(r"\[/?[a-z ]*\]|\x08", "", text))


def _shown(argument: Any) -> str:
    name = str(argument.metavar or argument.name).strip("{}")
    return f"{name}…" if argument.nargs == -1 and not name.endswith("…") else name


def _options(command: Any) -> Iterator[str]:
    given = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    rows = [(_flags(p), _kind(p), _said(p)) for p in given if "--help" not in p.opts]
    yield from table(("option", "takes", "means"), rows)


def _flags(option: Any) -> str:
    names = sorted([*option.opts, *option.secondary_opts], key=len, reverse=True)
    return ", ".join(f"`{name}`" for name in names)


def _kind(option: Any) -> str:
    if option.metavar:
        return f"`{option.metavar}`"
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(f"`{one.value}`" for one in kind)
    return KINDS.get(kind, "text")


def _said(parameter: Any) -> str:
    notes = [plain(getattr(parameter, "help", "") or "")]
    default = parameter.default
    if parameter.required:
        notes.append("Required.")
    elif default and not isinstance(default, bool):
        notes.append(f"Default: {shown(default)}.")
    if getattr(parameter, "envvar", None):
        notes.append(f"Also `{parameter.envvar}`.")
    return " ".join(note for note in notes if note)
