"""The commands about adapters: upload, list, show, delete, alias, rollback."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from . import _upload
from ._completion import adapter_names
from ._session import API_ERROR, Session, facts, printable
from ._versions import found as found_version
from ._versions import numbered
from .errors import InvalidArgument
from .types import Adapter

Name = Annotated[str, typer.Argument(help="The adapter's name.", autocompletion=adapter_names)]
Reference = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The adapter's name, or NAME@3.", autocompletion=adapter_names
    ),
]


def upload(  # noqa: PLR0913 (the options of a command)
    ctx: typer.Context,
    directory: Annotated[
        Path,
        typer.Argument(metavar="DIR", exists=True, help="A PEFT directory, or a .safetensors."),
    ],
    name: Annotated[str, typer.Option(help="The adapter's name; a known one gets a new version.")],
    alias: Annotated[str | None, typer.Option(help="Points to this version afterwards.")] = None,
    config: Annotated[
        Path | None, typer.Option(exists=True, help="Else adapter_config.json beside the file.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Kept with the version; repeatable."),
    ] = None,
    shared: Annotated[
        bool | None,
        typer.Option("--shared/--no-shared", help="Whether all tenants may use it."),
    ] = None,
) -> None:
    """Publish an adapter."""
    session: Session = ctx.obj
    pairs = _pairs(metadata or [])
    with session.client() as client, upload_progress(session) as on_progress:
        adapter = client.upload(
            directory,
            name,
            config=config,
            alias=alias,
            metadata=pairs or None,
            shared=shared,
            on_progress=on_progress,
        )
    session.emit(adapter.raw, Text(printable(f"{_reference(adapter)} is ready ({adapter.digest})")))


def list_adapters(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    method: Annotated[str | None, typer.Option(help="Only adapters of this method.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only names that begin so.")] = None,
) -> None:
    """List the adapters."""
    session: Session = ctx.obj
    with session.client() as client:
        wanted = limit and limit + 1
        found = list(client.list_adapters(limit=wanted, method=method, prefix=prefix))
    listed = found[:limit]
    is_part = method is not None or prefix is not None
    nothing = "such adapters; `overtone list` shows all." if is_part else "adapters."
    session.emit_list(
        [adapter.raw for adapter in listed],
        _adapter_table(listed) if listed else Text(f"There are no {nothing}"),
        has_more=len(found) > len(listed),
    )


def show(ctx: typer.Context, name: Reference) -> None:
    """Show one adapter: a version, its aliases, all versions."""
    session: Session = ctx.obj
    with session.client() as client:
        adapter, versions = found_version(client, name)
    document = {**adapter.raw, "versions": [each.raw for each in versions]}
    session.emit(document, _facts(adapter, versions))


def delete(
    ctx: typer.Context,
    name: Reference,
    version: Annotated[int | None, typer.Option(help="Only this version.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete an adapter with all its versions, or one version."""
    session: Session = ctx.obj
    name, version = numbered(name, version)
    what = f"{name} and all its versions" if version is None else f"{name}@{version}"
    if not yes:
        _confirm(f"Delete {printable(what)}?", session)
    with session.client() as client:
        client.delete(name, version)
    session.emit(
        {"name": name, "version": version, "deleted": True}, Text(printable(f"Deleted {what}."))
    )


def alias(
    ctx: typer.Context,
    name: Name,
    alias: Annotated[str, typer.Argument(help="The alias, e.g. prod.")],
    version: Annotated[int, typer.Argument(help="The version it points to afterwards.")],
    if_version: Annotated[
        int | None, typer.Option(help="Only if it points to this version now.")
    ] = None,
) -> None:
    """Point an alias to a version."""
    session: Session = ctx.obj
    with session.client() as client:
        moved = client.alias(name, alias, version, if_match=if_version)
    text = f"{moved.adapter}@{moved.alias} is now version {moved.version}"
    session.emit(vars(moved), Text(printable(text)))


def rollback(ctx: typer.Context, name: Name) -> None:
    """Point `latest` back to the version before."""
    session: Session = ctx.obj
    with session.client() as client:
        adapter = client.rollback(name)
    text = f"{adapter.name} is now {_reference(adapter)}"
    session.emit(adapter.raw, Text(printable(text)))


@contextmanager
def upload_progress(session: Session) -> Iterator[_upload.Progress]:
    """A bar for the bytes of an upload, where standard error is a terminal."""
    is_hidden = session.as_json or not sys.stderr.isatty()
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=is_hidden, transient=True) as progress:
        task = progress.add_task("uploading", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InvalidArgument(f"--metadata takes KEY=VALUE, not {pair!r}")
        pairs[key] = value
    return pairs


def _confirm(question: str, session: Session) -> None:
    if session.as_json or not sys.stdin.isatty():
        raise InvalidArgument("this is not a terminal, so it cannot ask: add --yes to delete")
    if not typer.confirm(question, err=True):
        raise typer.Exit(API_ERROR)


def _reference(adapter: Adapter) -> str:
    return f"{adapter.name}@{adapter.version}"


def _adapter_table(adapters: list[Adapter]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("NAME", "VERSION", "METHOD", "SIZE", "ALIASES", "CREATED"):
        table.add_column(title, overflow="fold")
    for adapter in adapters:
        cells = (adapter.name, adapter.version, adapter.method, size(adapter.size_bytes))
        created = f"{adapter.created_at:%Y-%m-%d}" if adapter.created_at else None
        table.add_row(*map(_cell, (*cells, _notable(adapter), created)))
    return table


def _facts(adapter: Adapter, versions: list[Adapter]) -> Text:
    base = adapter.base.name
    if base and not adapter.base.is_verified:
        base += " (checked by names and shapes only)"
    return facts(
        {
            "name": adapter.name,
            "version": adapter.version,
            "digest": adapter.digest,
            "method": adapter.method,
            "base": base,
            "coefficients": adapter.num_coefficients,
            "size": size(adapter.size_bytes),
            "aliases": _aliases(adapter),
            "created": adapter.created_at,
            "created by": adapter.created_by,
            "modules": _modules(adapter.target_modules),
            "config": _assignments(adapter.method_config),
            "metadata": _assignments(adapter.metadata),
            "metrics": _assignments(adapter.metrics),
            "owner": adapter.owner,
            "shared with": _sharing(adapter),
            "residency": _residency(adapter.residency),
            "versions": ", ".join(str(each.version) for each in versions),
        }
    )


def _aliases(adapter: Adapter) -> str:
    return ", ".join(f"{alias}={version}" for alias, version in sorted(adapter.aliases.items()))


def _notable(adapter: Adapter) -> str:
    """The aliases; `latest` only where it is not the newest version, which the line is about."""
    is_back = adapter.aliases.get("latest") != adapter.version
    shown = {name: v for name, v in adapter.aliases.items() if name != "latest" or is_back}
    return ", ".join(f"{alias}={version}" for alias, version in sorted(shown.items()))


def _sharing(adapter: Adapter) -> str:
    return "all tenants" if adapter.shared else ", ".join(adapter.shared_with)


def _residency(value: Any) -> str:
    """Where its coefficients are: some servers say it in one word, ours in a list."""
    return (", ".join(value) or "not in memory") if isinstance(value, list) else value


def _modules(paths: Sequence[str]) -> str:
    """The modules by kind, with the number of layers that have one: `model.layers.*.q_proj×4`."""
    kinds = Counter(re.sub(r"\.\d+(?=\.|$)", ".*", path) for path in paths)
    return ", ".join(f"{kind}×{count}" if "*" in kind else kind for kind, count in kinds.items())


def _assignments(values: Any) -> str:
    return ", ".join(
        f"{key}={json.dumps(value) if isinstance(value, Mapping | list) else value}"
        for key, value in values.items()
    )


def _cell(value: Any) -> Text:
    """Plain text: markup in a name is not interpreted."""
    return Text("" if value is None else printable(str(value)))


def size(size_bytes: int | None) -> str | None:
    """A number of bytes for people."""
    if size_bytes is None:
        return None
    number, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
