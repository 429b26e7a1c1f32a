"""The trainer's own command of the `overtone` program: worker.

`python -m trainer.commands` is the same command; `serve --with-worker` starts that. Torch is
imported by each job's process, not here, so that a waiting worker is small.
"""

import logging
from pathlib import Path
from typing import Annotated

import typer

_DATA = Path.home() / ".overtone"


def worker(
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
    from registry import RegistryError
    from trainer.worker import WorkerSettings, run_worker

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        settings = WorkerSettings(
            base=base,
            base_name=base_name or Path(base).name,
            data=data,
            store=store,
            registry=registry,
            device=device,
            threads=threads,
            nice=nice,
            stalled_after_s=stalled_after,
            ranks=ranks,
            tensorboard=tensorboard,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    try:
        code = run_worker(settings)
    except RegistryError as error:
        typer.secho(error.message, err=True, fg=typer.colors.RED)
        raise typer.Exit(1) from error
    raise typer.Exit(code)


if __name__ == "__main__":
    typer.run(worker)
