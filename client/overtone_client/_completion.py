"""What the shell offers behind a command: names that the server has, if it answers at once."""

from collections.abc import Callable

import typer

from ._sync.client import Client
from .errors import OvertoneError

_MOST = 100
_PATIENCE_S = 1.0


def adapter_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of adapters that begin so."""
    return _asked(ctx, lambda client: _adapters(client, incomplete))


def model_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same, and the base."""
    return _asked(ctx, lambda client: [*_base(client, incomplete), *_adapters(client, incomplete)])


def job_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of the newest jobs that begin so."""

    def ids(client: Client) -> list[str]:
        return [job.id for job in client.training.jobs(limit=_MOST)]

    return [id for id in _asked(ctx, ids) if id.startswith(incomplete)]


def _adapters(client: Client, prefix: str) -> list[str]:
    found = client.list_adapters(limit=_MOST, prefix=prefix or None)
    return [adapter.name for adapter in found]


def _base(client: Client, prefix: str) -> list[str]:
    return [model.id for model in client.models(limit=1) if model.id.startswith(prefix)]


def _asked(ctx: typer.Context, ask: Callable[[Client], list[str]]) -> list[str]:
    """What the server of the command line says; nothing where it does not."""
    given = ctx.find_root().params
    try:
        with Client(
            given["url"],
            given.get("api_key"),
            timeout=_PATIENCE_S,
            acting_for=given.get("acting_for"),
            max_retries=0,
        ) as client:
            return ask(client)
    except OvertoneError:  # a shell has no place for errors
        return []
