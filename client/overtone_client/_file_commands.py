"""The commands about uploaded files: files upload, list, show, download, delete."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ._adapter_commands import size, upload_progress
from ._job_report import whole_id
from ._output_files import written
from ._session import Session, facts, plain_table, printable
from ._sync.client import Client
from .errors import InvalidArgument
from .training_types import TrainingFile

files = typer.Typer(
    no_args_is_help=True,
    help="Uploaded files: upload, list, show, download, delete.",
)
FileId = Annotated[str, typer.Argument(metavar="FILE", help="Its id, file-…, or how that begins.")]


@files.command()
def upload(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSONL, CSV, or a zip of images.")],
    purpose: Annotated[str, typer.Option(help="fine-tune or batch.")] = "fine-tune",
) -> None:
    """Upload a file, and say what is wrong with it; `train` and `batch create` do it, too."""
    session: Session = ctx.obj
    with session.client() as client, upload_progress(session) as on_progress:
        uploads = {"fine-tune": client.training.upload, "batch": client.batches.upload}
        if purpose not in uploads:
            raise InvalidArgument(f"--purpose is fine-tune or batch, not {purpose!r}")
        made = uploads[purpose](file, on_progress=on_progress)
    session.emit(made.raw, _shown(made))


@files.command("list")
def list_files(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = 20,
) -> None:
    """List the uploaded files, the newest first."""
    session: Session = ctx.obj
    with session.client() as client:
        found = list(client.training.files(limit=limit and limit + 1))
    listed = found[:limit]
    session.emit_list(
        [one.raw for one in listed],
        _table(listed) if listed else Text("There are no files."),
        has_more=len(found) > len(listed),
    )


@files.command()
def show(ctx: typer.Context, file: FileId) -> None:
    """Show an uploaded file."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.training.file(_file_id(client, file))
    session.emit(found.raw, _shown(found))


@files.command()
def download(
    ctx: typer.Context,
    file: FileId,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the file is written.")],
) -> None:
    """Write an uploaded file's bytes, exactly as they were uploaded."""
    session: Session = ctx.obj
    with session.client() as client:
        id = _file_id(client, file)
        data = client.training.file_content(id)
    written(output, data)
    document = {"id": id, "bytes": len(data), "output": str(output)}
    session.emit(document, Text(printable(f"{len(data)} bytes are in {output}")))


@files.command()
def delete(ctx: typer.Context, file: FileId) -> None:
    """Delete an uploaded file that no unfinished job reads."""
    session: Session = ctx.obj
    with session.client() as client:
        id = _file_id(client, file)
        client.training.delete_file(id)
    session.emit({"id": id, "deleted": True}, Text(printable(f"Deleted {id}.")))


def _file_id(client: Client, given: str) -> str:
    ids = (one.id for one in client.training.files())
    return whole_id(given, "file-", ids, ("file", "`overtone files list`"))


def _shown(file: TrainingFile) -> Text:
    return facts(
        {
            "file": file.id,
            "name": file.filename,
            "size": size(file.size_bytes),
            "examples": file.num_examples,
            "digest": file.digest,
            "uploaded": file.created_at,
            "faults": file.faults,
        }
    )


def _table(found: Sequence[TrainingFile]) -> Table:
    rows = [
        (one.id, one.filename, size(one.size_bytes) or "", "faults" if one.faults else "good")
        for one in found
    ]
    return plain_table(("FILE", "NAME", "SIZE", "STATE"), rows)
