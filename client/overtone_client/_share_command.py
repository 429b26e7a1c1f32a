"""The command `overtone share`."""

from typing import Annotated

import typer
from rich.text import Text

from ._adapter_commands import Name
from ._session import Session, printable
from .errors import InvalidArgument


def share(
    ctx: typer.Context,
    name: Name,
    tenants: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="TENANT", help="May use it, instead of those before; repeatable."
        ),
    ] = None,
    everyone: Annotated[
        bool | None, typer.Option("--all/--no-all", help="Whether every tenant may use it.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="No other tenant may use it.")] = False,
) -> None:
    """Let other tenants use one of your adapters.

    They name it OWNER:NAME, and cannot change it.
    """
    session: Session = ctx.obj
    if none and (tenants or everyone is not None):
        raise InvalidArgument("--none leaves no tenant: give it alone")
    if not (none or tenants or everyone is not None):
        raise InvalidArgument("share it with which tenants? give --with TENANT, --all or --none")
    with session.client() as client:
        shared, named = (False, []) if none else (everyone, tenants or None)
        adapter = client.share(name, shared=shared, tenants=named)
    others = [*(["all tenants"] if adapter.shared else []), *adapter.shared_with]
    told = ", ".join(others) or "no other tenant"
    how = f", as {adapter.owner}:{adapter.name}" if others and adapter.owner else ""
    session.emit(adapter.raw, Text(printable(f"{adapter.name} may be used by {told}{how}")))
