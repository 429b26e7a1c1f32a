"""How the application's commands say what is wrong: one line, or with --json one document.

The document is the one that the client's commands write: `{"error": {"message", "code",
"next_step"}}` on standard error.
"""

import json
from typing import NoReturn

import typer


def complain(message: str, exit_code: int, *, as_json: bool, code: str) -> NoReturn:
    """Write what is wrong to standard error and end the command.

    Args:
        message: what is wrong, and what to do.
        exit_code: 1 for what was found, 2 for how the command was called.
        as_json: whether a program reads it.
        code: the kind of fault, for programs.
    """
    line = " ".join(message.split())
    if as_json:
        fault = {"message": line, "code": code, "next_step": None}
        typer.echo(json.dumps({"error": fault}), err=True)
    else:
        typer.secho(f"error: {line}", err=True, fg=typer.colors.RED)
    raise typer.Exit(exit_code)
