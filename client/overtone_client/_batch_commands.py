"""The commands about batches of requests: batch create, list, show, cancel, results."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ._adapter_commands import _pairs as pairs
from ._adapter_commands import upload_progress
from ._batch_follow import follow
from ._job_report import shortened, whole_id
from ._output_files import written
from ._session import Session, facts, is_terminal, plain_table, printable
from ._sync.client import Client
from ._uploaded_files import kept_if_filed
from .batch_types import Batch
from .errors import InvalidArgument, OvertoneError
from .training_types import TrainingFile

batch = typer.Typer(
    no_args_is_help=True, help="Many requests: create, list, show, cancel, results."
)
BatchId = Annotated[
    str, typer.Argument(metavar="BATCH", help="Its id, batch_…, or how that begins.")
]
IsFollowed = Annotated[
    bool, typer.Option("--follow", help="Show how many requests are answered, to the end.")
]


class BadBatchFile(OvertoneError):
    """The server has looked at the file and cannot run it as a batch."""

    code = "invalid_batch_file"


class BatchFailed(OvertoneError):
    """The batch that was followed has not completed; `code` says why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@batch.command()
def create(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSONL, one request a line.")],
    endpoint: Annotated[
        str | None, typer.Option(help="That all lines name; else the first line's.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Kept with the batch; repeatable."),
    ] = None,
    is_followed: IsFollowed = False,
) -> None:
    """Upload a file of requests and run it in the room that other requests leave."""
    session: Session = ctx.obj
    notes = pairs(metadata or []) or None
    with session.client() as client:
        with kept_if_filed(client) as note:
            uploaded = note(_uploaded(client, session, file))
            known = (uploaded.raw.get("overtone") or {}).get("endpoint")
            made = client.batches.create(uploaded.id, endpoint or str(known), metadata=notes)
        _finish(client, session, made, is_followed)


@batch.command("list")
def list_batches(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = 20,
) -> None:
    """List the batches, the newest first."""
    session: Session = ctx.obj
    with session.client() as client:
        found = list(client.batches.list(limit=limit and limit + 1))
    listed = found[:limit]
    session.emit_list(
        [one.raw for one in listed],
        _table(listed) if listed else Text("There are no batches."),
        has_more=len(found) > len(listed),
    )


@batch.command()
def show(ctx: typer.Context, batch: BatchId, is_followed: IsFollowed = False) -> None:
    """Show a batch, or follow it to its end."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.batches.get(_batch_id(client, batch))
        _finish(client, session, found, is_followed)


@batch.command()
def cancel(ctx: typer.Context, batch: BatchId) -> None:
    """Stop a batch; what is answered by then is kept."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.batches.cancel(_batch_id(client, batch))
    session.emit(found.raw, _shown(found))


@batch.command()
def results(
    ctx: typer.Context,
    batch: BatchId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write them there, not to the terminal.")
    ] = None,
) -> None:
    """Print a batch's answers, then its failed requests: JSONL, one line a request."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.batches.get(_batch_id(client, batch))
        if not found.is_final:
            raise InvalidArgument(f"{found.id} is {found.status}: results come when it is over")
        ids = [id for id in (found.output_file, found.error_file) if id is not None]
        if not ids:
            words = f": {_words(found)}" if found.faults else ""
            raise BatchFailed(
                f"{found.id} is {found.status} and has no results{words}", found.status
            )
        contents = [client.training.file_content(id) for id in ids]
    _write(session, found, b"".join(contents), output)


def _write(session: Session, batch: Batch, content: bytes, output: Path | None) -> None:
    if output is None:
        if session.as_json:
            session.emit_list([json.loads(line) for line in content.splitlines()], "")
        else:
            shown = printable(content.decode(errors="replace")) if is_terminal() else content
            typer.echo(shown, nl=False)
        return
    written(output, content)
    count = content.count(b"\n")
    document = {"id": batch.id, "lines": count, "output": str(output)}
    session.emit(document, Text(printable(f"{count} lines are in {output}")))


def _finish(client: Client, session: Session, batch: Batch, is_followed: bool) -> None:
    if is_followed:
        batch = follow(client, session, batch)
        if batch.status == "failed" and batch.faults:
            raise BatchFailed(f"{batch.id}: {_words(batch)}", batch.faults[0].code)
        if batch.status != "completed":
            raise BatchFailed(f"{batch.id} is {batch.status}", batch.status)
    session.emit(batch.raw, _shown(batch))


def _uploaded(client: Client, session: Session, path: Path) -> TrainingFile:
    """The file on the server; one that cannot be run is deleted there again."""
    with upload_progress(session) as on_progress:
        file = client.batches.upload(path, on_progress=on_progress)
    if file.faults:
        client.training.delete_file(file.id)
        raise BadBatchFile(f"{path.name}: {file.faults}")
    return file


def _batch_id(client: Client, given: str) -> str:
    ids = (one.id for one in client.batches.list())
    return whole_id(given, "batch_", ids, ("batch", "`overtone batch list`"))


def _shown(batch: Batch) -> RenderableType:
    if not batch.is_final:
        short = shortened([batch.id])[0]
        text = f"{batch.id} is {batch.status}; `overtone batch show {short} --follow` shows it"
        return Text(printable(text))
    return facts(
        {
            "batch": batch.id,
            "status": batch.status,
            "endpoint": batch.endpoint,
            "requests": batch.total,
            "completed": batch.completed,
            "failed": batch.failed or None,
            "answers": batch.output_file,
            "errors": batch.error_file,
            "faults": _words(batch),
            "metadata": ", ".join(f"{key}={value}" for key, value in batch.metadata.items()),
        }
    )


def _words(batch: Batch) -> str:
    faults = [
        f"line {one.line}: {one.message}" if one.line else one.message for one in batch.faults
    ]
    return "; ".join(faults)


def _table(batches: list[Batch]) -> Table:
    ids = [one.id for one in batches]
    rows = [
        (
            id,
            one.status,
            one.endpoint.removeprefix("/v1/"),
            f"{one.completed}/{one.total}",
            str(one.failed or ""),
            f"{one.created_at:%m-%d %H:%M}" if one.created_at else "",
        )
        for id, one in zip(shortened(ids) if is_terminal() else ids, batches, strict=True)
    ]
    return plain_table(("BATCH", "STATUS", "ENDPOINT", "ANSWERED", "FAILED", "CREATED"), rows)
