"""The commands backup and restore: a registry and its store in a folder, and back.

They need the registry and the store, and no base and no server. Loaded by entry point when they are
called.
"""

import json as jsonlib
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from registry.backup.backup import back_up
from registry.backup.manifest import Manifest
from registry.backup.restore import restore as put_back
from server.process.command_errors import end_with_error
from server.process.opened_registry import (
    DATA,
    DataOption,
    JsonOption,
    RegistryOption,
    StoreOption,
    note,
    opened_registry,
    store_is_there,
)


def backup(
    destination: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    registry: RegistryOption = "embedded",
    data: DataOption = DATA,
    store_: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the registry and all that it names to a folder, while servers and workers run."""
    store_is_there(data, store_, as_json=as_json)
    with opened_registry(registry, data, store_, as_json=as_json) as opened:
        opened.open_store(patience_s=0)
        made = back_up(opened, destination, version("overtone"), time.time())
    _tell("written to", destination, made, as_json=as_json)
    if made.missing:
        end_with_error(
            f"the backup is complete but for what the store itself has lost: {_some(made.missing)}",
            1,
            as_json=as_json,
            code="missing",
        )


def restore(
    source: Annotated[Path, typer.Argument(help="A folder that `overtone backup` wrote.")],
    registry: RegistryOption = "embedded",
    data: DataOption = DATA,
    store_: StoreOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there; it is kept in .replaced.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make the registry and the store what they were when a backup was made."""
    with opened_registry(registry, data, store_, as_json=as_json) as opened:
        made = put_back(opened, source, force=force, now=time.time())
        note("restore", store=made.store, registry=made.registry, taken_at=made.taken_at)
    _tell("restored from", source, made, as_json=as_json)


def _tell(what: str, folder: Path, made: Manifest, *, as_json: bool) -> None:
    size = sum(content.size_bytes for content in made.files.values())
    facts = {
        "folder": str(folder),
        "program": made.program,
        "schema": made.schema,
        "taken_at": made.taken_at,
        "registry": made.registry,
        "store": made.store,
        "files": len(made.files),
        "size_bytes": size,
        "missing": list(made.missing),
    }
    if as_json:
        typer.echo(jsonlib.dumps(facts))
        return
    taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.taken_at))
    typer.echo(
        f"{what} {folder}: {len(made.files):,} files, {size:,} bytes, as of {taken}, "
        f"by version {made.program}"
    )


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
