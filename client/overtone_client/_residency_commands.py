"""The commands about memory and files of adapters: warm, pin, unpin, download."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ._adapter_commands import Name, Reference
from ._output_files import written
from ._session import Session, printable
from ._versions import found as found_version


def warm(ctx: typer.Context, name: Reference) -> None:
    """Load an adapter now: its first request need not wait."""
    session: Session = ctx.obj
    with session.client() as client:
        client.warm(name)
    session.emit({"name": name, "warm": True}, Text(printable(f"{name} is in memory")))


def pin(ctx: typer.Context, name: Name) -> None:
    """Keep an adapter in memory until it is unpinned."""
    session: Session = ctx.obj
    with session.client() as client:
        client.pin(name)
    session.emit({"name": name, "pinned": True}, Text(printable(f"{name} stays in memory")))


def unpin(ctx: typer.Context, name: Name) -> None:
    """Let an adapter leave memory for others."""
    session: Session = ctx.obj
    with session.client() as client:
        client.unpin(name)
    session.emit({"name": name, "pinned": False}, Text(printable(f"{name} may leave memory")))


def download(
    ctx: typer.Context,
    name: Reference,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the file is written.")],
) -> None:
    """Write a version's file, exactly as it was uploaded."""
    session: Session = ctx.obj
    with session.client() as client:
        adapter, _ = found_version(client, name)
        data = client.content(adapter.name, adapter.version)
    written(output, data)
    told = f"{adapter.name}@{adapter.version}: {len(data)} bytes are in {output}"
    session.emit({**adapter.raw, "output": str(output)}, Text(printable(told)))
