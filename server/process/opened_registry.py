"""Shared by the commands on a registry: its options, opening it, and the audit log."""

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from adapters_core.starting import CannotStart
from registry import Registry, RegistryError, connect
from registry.objects.place import store_place
from registry.redis.reach import reach
from server.process.command_errors import end_with_error
from server.settings import BadSetting, read_settings_of_machine
from server.telemetry.audit import AuditLine, audit, close_audit_log, open_audit_log

DATA = Path.home() / ".overtone"

RegistryOption = Annotated[
    str, typer.Option(envvar="OVERTONE_REGISTRY", help="embedded, or redis://HOST:PORT/DB.")
]
DataOption = Annotated[
    Path, typer.Option(envvar="OVERTONE_DATA", help="Folder of the embedded registry and blobs.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", envvar="OVERTONE_STORE", help="Folder of the blobs, if elsewhere, or s3://…"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]


@contextmanager
def opened_registry(
    registry: str, data: Path, store: str | None = None, *, as_json: bool = False
) -> Iterator[Registry]:
    """Open a registry; a fault of it or of its store ends the program with code 1."""
    audit_log = None
    try:
        settings = read_settings_of_machine(registry=registry)
        audit_log = open_audit_log(settings.audit_log)
        url = settings.registry_url  # with its password
        cache_bytes = settings.store_cache_bytes
        with connect(url, data, store=store, cache_bytes=cache_bytes) as opened:
            reach(opened.client, opened.shown)
            opened.ownership.check_schema()
            yield opened
    except (RegistryError, BadSetting, CannotStart, OSError) as error:
        code = getattr(error, "code", "invalid_argument")
        end_with_error(str(error), 1, as_json=as_json, code=code)
    finally:
        close_audit_log(audit_log)


def store_is_there(data: Path, store: str | None, *, as_json: bool = False) -> None:
    """End the program with code 1 where there is no folder of the store; a bucket is asked."""
    try:
        place = store_place(store, data / "blobs")
    except RegistryError as error:
        end_with_error(error.message, 1, as_json=as_json, code="invalid_argument")
    if isinstance(place, Path) and not place.is_dir():
        what = f"there is no store at {place}: name it with --store, or its parent with --data"
        end_with_error(what, 1, as_json=as_json, code="not_found")


def note(action: str, **object_: object) -> None:
    """Write to the audit log that a command has changed something in an opened registry."""
    audit(AuditLine(action, object_, "done", user=_user()))


def _user() -> str:
    """Return the user of the system: its name, or its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
