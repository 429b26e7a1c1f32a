"""What a Tab offers, in a shell or a chat: names that the server has, if it answers at once."""

from collections.abc import Callable

import typer

from ._session import Session
from ._sync.client import Client
from .errors import OvertoneError

_MOST = 100
_PATIENCE_S = 1.0


def adapter_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of adapters that begin so."""
    return adapter_names_of(_session(ctx), incomplete)


def adapter_names_of(session: Session, prefix: str) -> list[str]:
    """Names of the adapters of a session's server that begin so."""
    return _asked(session, lambda client: _adapters(client, prefix))


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same, and the base."""

    def names(client: Client) -> list[str]:
        return [*_base(client, incomplete), *_adapters(client, incomplete)]

    return _asked(_session(ctx), names)


def job_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the newest jobs that begin so."""

    def ids(client: Client) -> list[str]:
        return [job.id for job in client.training.jobs(limit=_MOST)]

    return [id for id in _asked(_session(ctx), ids) if id.startswith(incomplete)]


def _adapters(client: Client, prefix: str) -> list[str]:
    found = client.list_adapters(limit=_MOST, prefix=prefix or None)
    return [adapter.name for adapter in found]


def _base(client: Client, prefix: str) -> list[str]:
    return [model.id for model in client.models(limit=1) if model.id.startswith(prefix)]


def _session(ctx: typer.Context) -> Session:
    """The global options of a command line that is still being typed."""
    given = ctx.find_root().params
    return Session(
        given["url"], given.get("api_key") or None, False, given.get("acting_for") or None
    )


def _asked(session: Session, ask: Callable[[Client], list[str]]) -> list[str]:
    """What the server says; nothing where it does not."""
    try:
        with Client(
            session.url,
            session.api_key,
            timeout=_PATIENCE_S,
            acting_for=session.acting_for,
            max_retries=0,
        ) as client:
            return ask(client)
    except OvertoneError:  # a line that is typed has no place for errors
        return []
