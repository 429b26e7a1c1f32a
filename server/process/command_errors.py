"""Error output of the application's commands: one line, or with --json one document.

The document is that of the client's commands: `{"error": {"message", "code", "next_step"}}` on
standard error.
"""

import json
from typing import NoReturn

import typer


def end_with_error(message: str, exit_code: int, *, as_json: bool, code: str) -> NoReturn:
    """Write what is wrong to standard error and end the command.

    Args:
        message: what is wrong, and what to do.
        exit_code: 1 for a fault that was found, 2 for a wrong call of the command.
        as_json: write the document.
        code: the kind of fault, for programs.
    """
    line = " ".join(message.split())
    if as_json:
        fault = {"message": line, "code": code, "next_step": None}
        typer.echo(json.dumps({"error": fault}), err=True)
    else:
        typer.secho(f"error: {line}", err=True, fg=typer.colors.RED)
    raise typer.Exit(exit_code)
