"""The trainer's own command of the `overtone` program: worker.

`python -m trainer.worker.commands` is the same command; `serve --with-worker` starts that. Torch is
imported by each job's process, not here, so that a waiting worker is small.
"""

import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer

_DATA = Path.home() / ".overtone"


def worker(
    ctx: typer.Context,
    base: Annotated[
        str, typer.Option(envvar="OVERTONE_BASE", help="Folder or hub id, as the server has it.")
    ],
    base_name: Annotated[
        str | None,
        typer.Option(envvar="OVERTONE_BASE_NAME", help="As the server calls it; else its folder."),
    ] = None,
    registry: Annotated[
        str, typer.Option(envvar="OVERTONE_REGISTRY", help="embedded, or redis://HOST:PORT.")
    ] = "embedded",
    registry_password_file: Annotated[
        Path | None,
        typer.Option(
            envvar="OVERTONE_REGISTRY_PASSWORD_FILE",
            help="File whose first line is the password (or OVERTONE_REGISTRY_PASSWORD).",
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option(envvar="OVERTONE_DATA", help="Folder of the embedded registry, blobs.")
    ] = _DATA,
    store: Annotated[
        Path | None,
        typer.Option(envvar="OVERTONE_STORE", help="Folder of the blobs, if not there."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            envvar="OVERTONE_DEVICE", help="auto, cpu, cuda:1; cuda:0,cuda:1: one job over both."
        ),
    ] = "auto",
    ranks: Annotated[
        int,
        typer.Option(envvar="OVERTONE_WORKER_RANKS", min=1, help="Processes of a job on the CPU."),
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(envvar="OVERTONE_WORKER_THREADS", min=1, help="Of a job; else torch's own."),
    ] = None,
    nice: Annotated[
        int,
        typer.Option(envvar="OVERTONE_WORKER_NICE", min=0, max=19, help="How far jobs step back."),
    ] = 19,
    stalled_after: Annotated[
        float,
        typer.Option(
            envvar="OVERTONE_WORKER_STALLED_AFTER",
            min=10,
            help="Seconds without any progress after which a job's process is ended.",
        ),
    ] = 1800,
    tensorboard: Annotated[
        Path | None,
        typer.Option(envvar="OVERTONE_TENSORBOARD", help="Folder for event files, one run a job."),
    ] = None,
) -> None:
    """Train the jobs of one base, one at a time, until SIGTERM or Ctrl-C."""
    source = ctx.get_parameter_source("registry")
    given = {
        "base": base,
        "base_name": base_name or Path(base).name,
        "data": data,
        "store": store,
        "registry": registry,
        "device": device,
        "threads": threads,
        "nice": nice,
        "stalled_after_s": stalled_after,
        "ranks": ranks,
        "tensorboard": tensorboard,
    }
    is_flag = source is not None and source.name == "COMMANDLINE"
    raise typer.Exit(_run(given, registry_password_file, is_flag))


def _run(given: dict[str, Any], password_file: Path | None, registry_is_flag: bool) -> int:
    """Run a worker with these settings; return the program's exit code."""
    from adapters_core.starting import CannotStart, ended_at_once

    with ended_at_once("stopped while starting; no job was taken"):
        from registry import RegistryError
        from registry.redis.address import FLAG_WARNING, has_password
        from trainer.worker.worker import WorkerSettings, check, run_worker

        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        if registry_is_flag and has_password(given["registry"]):
            typer.secho(FLAG_WARNING, err=True, fg=typer.colors.YELLOW)
        try:
            url = _with_password(given["registry"], password_file)
            settings = WorkerSettings(**{**given, "registry": url})
        except (ValueError, RegistryError) as error:
            raise typer.BadParameter(str(error)) from error
        try:
            check(settings)
            return run_worker(settings)
        except (RegistryError, CannotStart) as error:
            typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
            return 1


def _with_password(url: str, file: Path | None) -> str:
    """Return the registry's URL with the password that was given beside it.

    Raises:
        InvalidArgument: it was given twice, or its file cannot be read.
    """
    from registry.redis.address import password_in, with_password

    given = os.environ.get("OVERTONE_REGISTRY_PASSWORD")
    return with_password(url, password_in(file) if file is not None else given)


if __name__ == "__main__":
    typer.run(worker)
