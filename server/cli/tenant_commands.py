"""`overtone tenant`: lists tenants with what they have, and renames a tenant.

Loaded by entry point when it is called.
"""

import json as jsonlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from registry.tenants import Holdings
from server.process.command_errors import end_with_error
from server.process.opened_registry import (
    DATA,
    DataOption,
    JsonOption,
    RegistryOption,
    note,
    opened_registry,
)

#: Stands for the tenant of a server without keys: its name is empty.
NO_TENANT = "-"

tenant = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="List tenants, or hand a tenant's adapters, files, jobs and batches to another name.",
)


@tenant.command("list")
def list_tenants(
    registry: RegistryOption = "embedded", data: DataOption = DATA, as_json: JsonOption = False
) -> None:
    """List every tenant that has anything; '-' is that of a server without keys."""
    _check_data(registry, data, as_json)
    with opened_registry(registry, data, as_json=as_json) as opened:
        found = opened.tenants.all()
    _show(found, as_json)


@tenant.command()
def rename(
    old: Annotated[str, typer.Argument(help="The tenant; '-' for that of a server without keys.")],
    new: Annotated[str, typer.Argument(help="The name, as in NAME=SECRET of OVERTONE_API_KEYS.")],
    registry: RegistryOption = "embedded",
    data: DataOption = DATA,
    as_json: JsonOption = False,
) -> None:
    """Hand what OLD and its gateway's callers have to NEW. Servers may run.

    Adapters that were made without a key, or with one of the environment, stay the operators'.
    """
    from registry import NameConflict
    from registry.access.record import TENANT

    if not TENANT.fullmatch(new):
        wrong = f"{new[:80]!r} cannot be a tenant's name: 1 to 64 letters, digits, . _ @ -"
        end_with_error(wrong, 2, as_json=as_json, code="invalid_argument")
    _check_data(registry, data, as_json)
    with opened_registry(registry, data, as_json=as_json) as opened:
        try:
            moved = opened.tenants.rename("" if old == NO_TENANT else old, new)
        except NameConflict as error:
            end_with_error(str(error), 1, as_json=as_json, code=error.code)
        note("renameTenant", tenant=old, new=new, tenants_moved=len(moved))
    if not moved:
        wrong = f"nothing belongs to {old!r}; `overtone tenant list` shows all tenants"
        end_with_error(wrong, 1, as_json=as_json, code="not_found")
    _show(moved, as_json)


def _check_data(registry: str, data: Path, as_json: bool) -> None:
    """Refuse a data folder without a registry: opening it would make one."""
    if registry == "embedded" and not (data / "registry").is_dir():
        wrong = f"there is no registry in {data}: name its folder with --data"
        end_with_error(wrong, 1, as_json=as_json, code="not_found")


def _show(found: Sequence[Holdings], as_json: bool) -> None:
    if as_json:
        typer.echo(jsonlib.dumps([asdict(each) for each in found]))
        return
    width = max([6, *(len(each.tenant) for each in found)])
    typer.echo(f"{'tenant':{width}}  adapters  files  jobs  batches  keys")
    for each in found:
        counts = f"{each.num_adapters:8}  {each.num_files:5}  {each.num_jobs:4}"
        counts += f"  {each.num_batches:7}  {each.num_keys:4}"
        typer.echo(f"{each.tenant or NO_TENANT:{width}}  {counts}")
