"""The one configuration of a worker: its flags, its environment, and what its processes receive.

A field with a `typer.Option` is a flag of `overtone worker`; the others are set by code alone. The
worker hands the whole object to each process of a job as JSON.
"""

import os
import socket
from pathlib import Path
from typing import Annotated, Self

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from adapters_core.gguf.conversion import base_name_of
from registry.adapters.blob_cache import CACHE_BYTES
from trainer.process.devices import devices_of, threads_of

RUN = "trainer.training.run:run_job"
LOAD = "trainer.base:load"


def default_name() -> str:
    """Return a worker's name: its machine and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class WorkerSettings(BaseModel):
    """How a worker runs.

    Args:
        base: folder, GGUF file or hub id.
        base_name: its name in jobs; the folder's or file's name if empty.
        registry, data, store, store_cache_bytes: as for `registry.connect`; the URL may hold a
            password.
        device: `auto`, `cpu` or `cuda:1`, one worker each; a list runs one job on all of them.
        ranks: processes of one job on the CPU.
        threads: of a job's matrix products; None leaves it to torch.
        nice: added to the niceness of a job's processes; 19 leaves them the idle time only.
        stalled_after_s: a job's process that reports no progress for so long is killed, and its
            attempt has failed.
        tensorboard: folder of event files, one run a job; None writes none.
        name: shown as the job's worker.
        beat_s: between heartbeats to the registry.
        lost_after_s: without a heartbeat, a job is taken back.
        grace_s: from the request to stop until a job's process is killed.
        run, load: `module:function` that trains, and that loads the base.

    Raises:
        ValueError: device and ranks do not go together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    base: Annotated[
        str,
        typer.Option(envvar="OVERTONE_BASE", help="Folder, GGUF file or hub id, as the server."),
    ]
    base_name: Annotated[
        str,
        typer.Option(
            envvar="OVERTONE_BASE_NAME",
            help="As the server calls it; else its folder.",
            show_default=False,
        ),
        Field(validate_default=True),
    ] = ""
    registry: Annotated[
        str, typer.Option(envvar="OVERTONE_REGISTRY", help="embedded, or redis://HOST:PORT.")
    ] = "embedded"
    data: Annotated[
        Path, typer.Option(envvar="OVERTONE_DATA", help="Folder of the embedded registry, blobs.")
    ] = Path.home() / ".overtone"
    store: Annotated[
        str | None,
        typer.Option(envvar="OVERTONE_STORE", help="Folder of the blobs, if not there; or s3://…"),
    ] = None
    store_cache_bytes: Annotated[
        int,
        typer.Option(
            envvar="OVERTONE_STORE_CACHE_BYTES", min=1 << 20, help="Of a bucket's blobs, kept here."
        ),
    ] = CACHE_BYTES
    device: Annotated[
        str,
        typer.Option(
            envvar="OVERTONE_DEVICE", help="auto, cpu, cuda:1; cuda:0,cuda:1: one job over both."
        ),
    ] = "auto"
    ranks: Annotated[
        int,
        typer.Option(envvar="OVERTONE_WORKER_RANKS", min=1, help="Processes of a job on the CPU."),
    ] = 1
    threads: Annotated[
        int | None,
        typer.Option(envvar="OVERTONE_WORKER_THREADS", min=1, help="Of a job; else torch's own."),
    ] = None
    nice: Annotated[
        int,
        typer.Option(
            envvar="OVERTONE_WORKER_NICE", min=0, max=19, help="Niceness of a job's processes."
        ),
    ] = 19
    stalled_after_s: Annotated[
        float,
        typer.Option(
            "--stalled-after",
            envvar="OVERTONE_WORKER_STALLED_AFTER",
            min=10,
            help="Seconds without any progress after which a job's process is ended.",
        ),
    ] = 1800.0
    tensorboard: Annotated[
        Path | None,
        typer.Option(envvar="OVERTONE_TENSORBOARD", help="Folder for event files, one run a job."),
    ] = None
    name: str = Field(default_factory=default_name)
    beat_s: float = 5.0
    lost_after_s: float = 30.0
    grace_s: float = 60.0
    run: str = RUN
    load: str = LOAD

    @field_validator("base_name")
    @classmethod
    def _folder_name(cls, value: str, info: ValidationInfo) -> str:
        return value or base_name_of(info.data.get("base", ""))

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        devices_of(self.device, self.ranks)
        return self

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the device of each rank of a job."""
        return devices_of(self.device, self.ranks)

    @property
    def rank_threads(self) -> int | None:
        """Return the threads of each of a job's processes; None leaves it to torch."""
        return threads_of(self.threads, len(self.devices))
