"""The command `overtone status`: whether the server answers, and what it is."""

from typing import Any

import typer
from rich.text import Text

from ._session import API_ERROR, Session, facts, printable
from .types import Health, Version


def status(ctx: typer.Context) -> None:
    """Say whether the server is ready, and what it serves.

    Exit code 1 if it takes no requests.
    """
    session: Session = ctx.obj
    with session.client() as client:
        health = client.health()
        version = client.version() if health.is_ready else None
    session.emit(_document(health, version), _shown(session, health, version))
    if not health.is_ready:
        raise typer.Exit(API_ERROR)


def _document(health: Health, version: Version | None) -> dict[str, Any]:
    about = {} if version is None else dict(version.raw)
    return {"ready": health.is_ready, "code": health.code, "reason": health.reason, **about}


def _shown(session: Session, health: Health, version: Version | None) -> Text:
    if version is None:
        return Text(printable(f"{session.url} is not ready: {health.code}: {health.reason}"))
    return facts(
        {
            "server": session.url,
            "state": "ready",
            "version": version.version,
            "base": version.base.name,
            "fingerprint": version.base.fingerprint,
            "context": f"{version.max_length} tokens",
        }
    )
