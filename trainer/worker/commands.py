"""The trainer's own command of the `overtone` program: worker.

`python -m trainer.worker.commands` is the same command; `serve --with-worker` starts that. Torch is
imported by each job's process, not here, so that a waiting worker is small.
"""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.process.settings import WorkerSettings
from trainer.worker.flags import with_settings


@with_settings
def worker(
    ctx: typer.Context,
    *,
    registry_password_file: Annotated[
        Path | None,
        typer.Option(
            envvar="OVERTONE_REGISTRY_PASSWORD_FILE",
            help="File whose first line is the password (or OVERTONE_REGISTRY_PASSWORD).",
        ),
    ] = None,
    **flags: Any,
) -> None:
    """Train the jobs of one base, one at a time, until SIGTERM or Ctrl-C."""
    source = ctx.get_parameter_source("registry")
    is_flag = source is not None and source.name == "COMMANDLINE"
    raise typer.Exit(_run(flags, registry_password_file, is_flag))


def _run(flags: dict[str, Any], password_file: Path | None, registry_is_flag: bool) -> int:
    """Run a worker with these settings; return the program's exit code."""
    from adapters_core.starting import CannotStart, ended_at_once

    with ended_at_once("stopped while starting; no job was taken"):
        from registry import RegistryError
        from registry.redis.address import FLAG_WARNING, has_password
        from trainer.worker.worker import check, run_worker, with_local_base

        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        if registry_is_flag and has_password(flags["registry"]):
            typer.secho(FLAG_WARNING, err=True, fg=typer.colors.YELLOW)
        settings = _settings(flags, password_file)
        try:
            check(settings)
            return run_worker(with_local_base(settings))
        except (RegistryError, CannotStart) as error:
            typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
            return 1


def _settings(flags: dict[str, Any], password_file: Path | None) -> WorkerSettings:
    """Return the worker's settings.

    Raises:
        typer.BadParameter: two flags do not go together, or a file of them cannot be used.
    """
    from pydantic import ValidationError

    from registry.errors import RegistryError
    from trainer.job import tensorboard

    try:
        settings = WorkerSettings(**{**flags, "registry": _url(flags["registry"], password_file)})
        if settings.tensorboard is not None:
            tensorboard.check(settings.tensorboard)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"].removeprefix("Value error, ")) from error
    except (ValueError, RegistryError) as error:
        raise typer.BadParameter(str(error)) from error
    return settings


def _url(url: str, password_file: Path | None) -> str:
    """Return the registry's URL with the password that was given beside it.

    Raises:
        InvalidArgument: it was given twice, or its file cannot be read.
    """
    from registry.redis.address import password_in, with_password

    given = os.environ.get("OVERTONE_REGISTRY_PASSWORD")
    return with_password(url, password_in(password_file) if password_file is not None else given)


if __name__ == "__main__":
    typer.run(worker)
