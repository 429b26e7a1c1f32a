"""The commands about API keys: keys create, list, show, rotate, revoke."""

import re
from datetime import datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ._job_report import shortened, whole_id
from ._session import Session, facts, is_terminal, plain_table, printable
from ._sync.client import Client
from .errors import InvalidArgument
from .key_types import ApiKey

keys = typer.Typer(
    no_args_is_help=True,
    help="API keys: create, list, show, rotate, revoke. Needs an admin's.",
)
KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Its id, or how that begins.")]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_ONCE = "This is shown once: only its hash is kept."


@keys.command()
def create(
    ctx: typer.Context,
    tenant: Annotated[str, typer.Option(help="Owns what is made with the key.")],
    scopes: Annotated[
        str, typer.Option(help="By commas: infer, upload, train, metrics, admin (has all).")
    ],
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Such as 12h, 30d or 52w; else never.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="For people.")] = None,
) -> None:
    """Make a key and show its secret, this once."""
    session: Session = ctx.obj
    wanted = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    life_s = None if expires is None else _seconds(expires)
    with session.client() as client:
        made = client.keys.create(tenant, wanted, label=label, expires_in_s=life_s)
    _show_secret(session, made)


@keys.command("list")
def list_keys(
    ctx: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = 100,
) -> None:
    """List the keys, the newest first, with those that ended lately."""
    session: Session = ctx.obj
    with session.client() as client:
        found = list(client.keys.list(limit=limit and limit + 1, tenant=tenant))
    listed = found[:limit]
    place = "in the registry" if tenant is None else f"of {tenant}"
    session.emit_list(
        [one.raw for one in listed],
        _table(listed) if listed else Text(printable(f"There are no keys {place}.")),
        has_more=len(found) > len(listed),
    )


@keys.command()
def show(ctx: typer.Context, key: KeyId) -> None:
    """Show a key as it stands, without its secret."""
    session: Session = ctx.obj
    with session.client() as client:
        found = client.keys.get(_key_id(client, key))
    session.emit(found.raw, facts(_facts(found)))


@keys.command()
def rotate(
    ctx: typer.Context,
    key: KeyId,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="How long the old secret stays valid: 1h, 2d …")
    ] = "0s",
) -> None:
    """Give a key a new secret and show it, this once."""
    session: Session = ctx.obj
    grace_s = _seconds(grace)
    with session.client() as client:
        made = client.keys.rotate(_key_id(client, key), grace_s=grace_s)
    _show_secret(session, made)


@keys.command()
def revoke(ctx: typer.Context, key: KeyId) -> None:
    """End a key for good, on all servers within a second."""
    session: Session = ctx.obj
    with session.client() as client:
        done = client.keys.revoke(_key_id(client, key))
    text = f"{done.id} of {done.tenant} is revoked"
    session.emit(done.raw, Text(printable(text)))


def _show_secret(session: Session, made: ApiKey) -> None:
    session.emit(made.raw, facts(_facts(made) | {"secret": made.secret}))
    if not session.as_json:
        typer.echo(_ONCE, err=True)


def _facts(key: ApiKey) -> dict[str, str | None]:
    return {
        "key": key.id,
        "tenant": key.tenant,
        "scopes": ",".join(key.scopes),
        "label": key.label,
        "expires": _shown(key.expires_at),
        "revoked": _shown(key.revoked_at),
        "old secret until": _shown(key.old_secret_until),
    }


def _key_id(client: Client, given: str) -> str:
    if re.fullmatch("[0-9a-f]{16}", given):
        return given
    if given.startswith("ovt_"):
        raise InvalidArgument("this is a secret: name the key by its id, the part behind ovt_")
    ids = (one.id for one in client.keys.list())
    return whole_id(given, "", ids, ("key", "`overtone keys list`"))


def _seconds(given: str) -> float:
    """Seconds of a time such as `30d`."""
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", given.strip())
    if not found:
        raise InvalidArgument(f"{given[:40]!r} is no time: give a number and s, m, h, d or w")
    return float(found[1]) * _SECONDS[found[2]]


def _shown(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else ""


def _table(found: list[ApiKey]) -> Table:
    """The keys, one a line, in days: `keys show` has the rest."""
    titles = ("KEY", "TENANT", "SCOPES", "ENDS", "CREATED", "EXPIRES", "STATE", "LABEL")
    ids = [one.id for one in found]
    rows = [
        (
            id,
            one.tenant,
            ",".join(one.scopes),
            f"…{one.ends_in}",
            f"{one.created_at:%Y-%m-%d}" if one.created_at else "",
            f"{one.expires_at:%Y-%m-%d}" if one.expires_at else "",
            "revoked" if one.revoked_at else "",
            one.label,
        )
        for id, one in zip(shortened(ids) if is_terminal() else ids, found, strict=True)
    ]
    return plain_table(titles, rows)
