"""The commands about tenants: tenants limits, usage."""

from typing import Annotated, Any

import typer
from rich.table import Table

from ._session import Session, printable
from .errors import InvalidArgument
from .tenant_types import TenantLimits, TenantUsage

tenants = typer.Typer(no_args_is_help=True, help="What tenants may ask, and use: limits, usage.")
_DEFAULT, _UNLIMITED = "default", "unlimited"


def _value_option(what: str) -> Any:
    return typer.Option(metavar="LIMIT", help=f"{what}: a number, unlimited or default.")


@tenants.command()
def limits(  # noqa: PLR0913 (an option for each limit)
    ctx: typer.Context,
    tenant: Annotated[str, typer.Argument(metavar="NAME", help="The tenant; need not be known.")],
    requests_per_minute: Annotated[str | None, _value_option("Requests in a minute")] = None,
    tokens_per_minute: Annotated[str | None, _value_option("Tokens in a minute")] = None,
    running_requests: Annotated[str | None, _value_option("Requests at once")] = None,
    adapters: Annotated[str | None, _value_option("Names of adapters")] = None,
    adapter_bytes: Annotated[str | None, _value_option("Their files together")] = None,
    files: Annotated[str | None, _value_option("Uploaded files")] = None,
    file_bytes: Annotated[str | None, _value_option("Uploaded files together")] = None,
    jobs: Annotated[str | None, _value_option("Unfinished training jobs")] = None,
) -> None:
    """Show a tenant's limits, or change those that are given. Needs an admin's key."""
    session: Session = ctx.obj
    given = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "running_requests": running_requests,
        "adapters": adapters,
        "adapter_bytes": adapter_bytes,
        "files": files,
        "file_bytes": file_bytes,
        "jobs": jobs,
    }
    changes = {name: _value(name, value) for name, value in given.items() if value is not None}
    with session.client() as client:
        found = client.tenants.limits(tenant)
        if changes:
            found = client.tenants.set_limits(tenant, {**found.own, **changes})
    session.emit(found.raw, _limits_table(found))


@tenants.command()
def usage(
    ctx: typer.Context,
    tenant: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The tenant; else that of your own key.")
    ] = None,
) -> None:
    """Show what a tenant uses of what it may; another one than your own needs an admin's key."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.tenants.usage(tenant)
    session.emit(found.raw, _usage_table(found))


def _value(name: str, given: str) -> int | str | None:
    """What is sent for one limit; None is the server's default."""
    if given == _DEFAULT:
        return None
    if given == _UNLIMITED:
        return _UNLIMITED
    if given.isascii() and given.isdecimal():
        return int(given)
    option = "--" + name.replace("_", "-")
    raise InvalidArgument(f"{option} {given[:40]!r}: give a number, `unlimited` or `default`")


def _limits_table(found: TenantLimits) -> Table:
    table = _table("LIMIT", "ALLOWED", "SET FOR")
    for name, allowed in found.limits.items():
        source = found.tenant if name in found.own else "all"
        table.add_row(_words(name), _shown(allowed, "unlimited"), printable(source))
    return table


def _usage_table(found: TenantUsage) -> Table:
    table = _table("LIMIT", "USED", "ALLOWED")
    for name, use in found.usage.items():
        table.add_row(_words(name), _shown(use.used, "-"), _shown(use.allowed, "unlimited"))
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number == 0 else "right")
    return table


def _words(name: str) -> str:
    return printable(name.replace("_", " "))


def _shown(value: int | None, nothing: str) -> str:
    return nothing if value is None else f"{value:,}"
