"""The commands about training: train, jobs, job, reproduce."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from ._adapter_commands import upload_progress
from ._completion import job_ids
from ._follow import follow
from ._job_history import show_checkpoints, show_curve, show_events
from ._job_report import job_id, job_table, shown
from ._output_files import check_writable, written
from ._reproduce import Reproduction, reproduced
from ._session import API_ERROR, Session, printable
from ._sync.client import Client
from ._sync.jobs import Job
from ._uploaded_files import kept_if_filed
from .errors import InvalidArgument, JobFailed, OvertoneError
from .training_types import TrainingFile

JobId = Annotated[
    str,
    typer.Argument(
        metavar="JOB", help="Its id, ftjob-…, or how that begins.", autocompletion=job_ids
    ),
]
IsFollowed = Annotated[
    bool, typer.Option("--follow", help="Show progress, loss and time left, to the job's end.")
]
#: What is shown instead of a job.
_HISTORIES = {
    "--events": show_events,
    "--checkpoints": show_checkpoints,
    "--curve": show_curve,
}
Plot = Annotated[Path | None, typer.Option(help="Write the training curve there, as PNG.")]


class BadTrainingFile(OvertoneError):
    """The server has looked at the file and cannot train on it."""

    code = "invalid_training_file"


def train(  # noqa: PLR0913 (the options of a command)
    ctx: typer.Context,
    data: Annotated[
        Path, typer.Option(exists=True, dir_okay=False, help="JSONL, CSV, or a zip of images.")
    ],
    name: Annotated[str, typer.Option(help="The adapter's name; a known one gets a new version.")],
    method: Annotated[str, typer.Option(help="Such as fourierft, loca, waveletft; or auto.")] = (
        "fourierft"
    ),
    validation: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Else a part of the data is held out."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="What is learned; else by the base.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the data.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples of one step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of everything random.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any hyper-parameter; repeatable."),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="A field of adapter_config.json; repeatable."),
    ] = None,
    alias: Annotated[str | None, typer.Option(help="Moved to the new version.")] = None,
    better_than: Annotated[
        str | None, typer.Option(help="base or alias:NAME; else the alias stays where it is.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option(help="Which must be better; else eval_loss.")
    ] = None,
    move_latest: Annotated[
        str | None,
        typer.Option("--latest", help="always or if_better: when the bare name means it."),
    ] = None,
    is_followed: IsFollowed = False,
    plot: Plot = None,
) -> None:
    """Upload data, and let a worker make an adapter of it."""
    session: Session = ctx.obj
    hyper = {"n_epochs": epochs, "batch_size": batch_size, **_values(option or [], "--set")}
    own = _values(config or [], "--config")
    if metric is not None and not better_than:
        raise InvalidArgument("--metric needs --better-than: what it is compared with")
    if plot is not None:
        check_writable(plot)
    gate = {"metric": metric or "eval_loss", "better_than": better_than} if better_than else None
    with session.client() as client:
        base = _base_of(client)
        with kept_if_filed(client) as note:
            files = [note(uploaded(client, session, path)) for path in (data, validation) if path]
            job = client.training.create(
                base,
                files[0].id,
                name=name,
                method=method,
                config=own or None,
                task=task,
                validation_file=files[1].id if validation else None,
                hyperparameters=hyper,
                seed=seed,
                alias=alias,
                publish_if=gate,
                move_latest=move_latest,
            )
            _raise_if_failed(job)  # some are, as they are filed
        _finish(client, session, job, is_followed or plot is not None, plot)


def jobs(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = 20,
) -> None:
    """List the training jobs, the newest first."""
    session: Session = ctx.obj
    with session.client() as client:
        found = list(client.training.jobs(limit=limit and limit + 1))
    listed = found[:limit]
    session.emit_list(
        [job.raw for job in listed],
        job_table(listed) if listed else Text("There are no jobs."),
        has_more=len(found) > len(listed),
    )


def job(  # noqa: PLR0913 (the options of a command)
    ctx: typer.Context,
    job: JobId,
    is_followed: IsFollowed = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End it for good.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Hold it.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on.")] = False,
    events: Annotated[bool, typer.Option("--events", help="Show what happened to it.")] = False,
    checkpoints: Annotated[
        bool,
        typer.Option("--checkpoints", help="Show from what it can resume, and samples of each."),
    ] = False,
    curve: Annotated[bool, typer.Option("--curve", help="Show each step's losses.")] = False,
    plot: Plot = None,
) -> None:
    """Show a training job; follow, cancel, pause or resume it."""
    session: Session = ctx.obj
    moves = {"--cancel": cancel, "--pause": pause, "--resume": resume}
    given = _only({**moves, "--events": events, "--checkpoints": checkpoints, "--curve": curve})
    if given in _HISTORIES and (is_followed or plot is not None):
        other = "--follow" if is_followed else "--plot"
        raise InvalidArgument(f"{given} and {other} exclude each other")
    if plot is not None:
        check_writable(plot)
    with session.client() as client:
        id = job_id(client, job)
        if given in _HISTORIES:
            _HISTORIES[given](client, session, id)
            return
        training = client.training
        acts = {"--cancel": training.cancel, "--pause": training.pause, "--resume": training.resume}
        act = acts.get(given or "", training.job)
        _finish(client, session, act(id), is_followed, plot)


def reproduce(
    ctx: typer.Context,
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="What a job made.")],
    data: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="If the server has the file no more."),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Likewise.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what was made again.")] = False,
) -> None:
    """Train a version again, and compare the two bit by bit."""
    session: Session = ctx.obj
    with session.client() as client:
        with kept_if_filed(client) as note:
            plan = Reproduction.of(client, reference, data, validation, note)
            filed = plan.filed(client)
        made = follow(client, session, filed)
        _raise_if_failed(made)
        is_same = reproduced(client, plan, made, keep=keep)
    words = "the same bytes" if is_same else "other bytes"
    told = f"{reference}: trained again, {words} ({plan.digest} and {made.digest})"
    document = {"reference": reference, "same": is_same, "digest": plan.digest}
    session.emit(document | {"again": made.digest, "job": made.id}, Text(printable(told)))
    if not is_same:
        raise typer.Exit(API_ERROR)


def _finish(
    client: Client, session: Session, job: Job, is_followed: bool, plot: Path | None
) -> None:
    if is_followed:
        job = follow(client, session, job)
    if plot is not None:
        written(plot, client.training.plot(job.id))
    if is_followed:
        _raise_if_failed(job)
    session.emit(job.raw, shown(job))


def _only(wanted: Mapping[str, bool]) -> str | None:
    """The flag that is given, if one is. Raises InvalidArgument where several are."""
    given = [flag for flag, is_wanted in wanted.items() if is_wanted]
    if len(given) > 1:
        *others, last = wanted
        raise InvalidArgument(f"give one of {', '.join(others)} and {last}")
    return given[0] if given else None


def _raise_if_failed(job: Job) -> None:
    if job.status in ("failed", "cancelled"):
        raise JobFailed.of(job)


def _base_of(client: Client) -> str:
    """The name of the base that the server trains on."""
    found = [model.id for model in client.models(limit=1) if model.parent is None]
    if not found:
        raise InvalidArgument("the server has no base to train on")
    return found[0]


def uploaded(client: Client, session: Session, path: Path) -> TrainingFile:
    """The file on the server; one that cannot be trained on is deleted there again."""
    with upload_progress(session) as on_progress:
        file = client.training.upload(path, on_progress=on_progress)
    if file.faults:
        client.training.delete_file(file.id)
        raise BadTrainingFile(f"{path.name}: {file.faults}")
    return file


def _values(pairs: list[str], flag: str) -> dict[str, Any]:
    """KEY=VALUE pairs; a value is JSON if it can be read as such, else a text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"{flag} takes KEY=VALUE, not {pair!r}")
        try:
            values[key] = json.loads(text)
        except (ValueError, RecursionError):
            values[key] = text
    return values
