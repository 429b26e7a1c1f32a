"""The commands about stored bytes: gc, and store with show and adopt.

They need the registry and the store, and no base and no server. Loaded by entry point when they are
called.
"""

import json as jsonlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from registry import Registry
from registry.store.standing import fault_of
from registry.store.unknown import DEFAULT_GRACE_S, Unknown
from server.cli.store_report import (
    adoption_text,
    print_unknown,
    standing_values,
    summary_of,
    unknown_values,
)
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

store = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Show to which registry a store belongs, or give it to another one.",
)


def gc(
    dry_run: Annotated[bool, typer.Option(help="List what would go, and remove nothing.")] = False,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Days for which something must have been listed before it goes."),
    ] = DEFAULT_GRACE_S / 86_400,
    registry: RegistryOption = "embedded",
    data: DataOption = DATA,
    store_: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove what lies in the store without a record in the registry for longer than the grace."""
    now, grace_s = time.time(), grace * 86_400
    with _opened(registry, data, store_, as_json=as_json) as opened:
        opened.open_store(patience_s=0)
        found = opened.unknown.look(now)
        due = [each for each in found if each.is_due(grace_s, now)]
        gone = [] if dry_run else opened.unknown.remove(due, grace_s, now)
        if not dry_run:
            note("removeUnknown", num_removed=len(gone))
    if as_json:
        typer.echo(jsonlib.dumps(unknown_values(found, due, gone, grace_s)))
    else:
        _print(found, gone, grace_s, dry_run)


@store.command()
def show(
    registry: RegistryOption = "embedded",
    data: DataOption = DATA,
    store_: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show to which registry the store belongs, and whether it is the one given here."""
    with _opened(registry, data, store_, as_json=as_json) as opened:
        standing = opened.ownership.standing()
        values = standing_values(standing, summary_of(opened))
    if as_json:
        typer.echo(jsonlib.dumps(values))
    else:
        for name, value in values.items():
            typer.echo(f"{name:27} {_shown(value)}")
    if values["fault"]:
        raise typer.Exit(1)


@store.command()
def adopt(
    registry: RegistryOption = "embedded",
    data: DataOption = DATA,
    store_: StoreOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> None:
    """Make this registry the store's owner, whatever both were before. Nothing is removed."""
    with _opened(registry, data, store_) as opened:
        standing = opened.ownership.standing()
        if standing.is_settled:
            typer.echo("The store is this registry's own already.")
            return
        typer.echo(adoption_text(standing, summary_of(opened), fault_of(standing)))
        if not yes:
            _confirm()
        mark = opened.ownership.adopt()
        note("adoptStore", store=mark.store, registry=mark.registry)
    typer.echo(f"The store {mark.store} belongs to the registry {mark.registry} now.")


def _print(found: list[Unknown], gone: list[Unknown], grace_s: float, dry_run: bool) -> None:
    print_unknown(found, gone, grace_s, time.time())
    if dry_run and found:
        typer.echo("Nothing was removed. Without --dry-run what is due goes.")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _confirm() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        _decline("nothing was changed: no terminal to confirm at; add --yes to adopt the store")
    if not typer.confirm("Adopt the store?"):
        _decline("nothing was changed")


def _decline(message: str) -> NoReturn:
    end_with_error(message, 1, as_json=False, code="not_confirmed")


@contextmanager
def _opened(
    registry: str, data: Path, store_: str | None, *, as_json: bool = False
) -> Iterator[Registry]:
    """Open a registry and a store that is there; a fault ends the program with code 1."""
    store_is_there(data, store_, as_json=as_json)
    with opened_registry(registry, data, store_, as_json=as_json) as opened:
        yield opened
