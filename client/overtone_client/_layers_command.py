"""The command `overtone layers`: what an adapter changes, layer by layer."""

import typer

from ._adapter_commands import Reference
from ._session import Session, plain_table
from ._versions import found as found_version


def layers(ctx: typer.Context, name: Reference) -> None:
    """List the layers that a version changes."""
    session: Session = ctx.obj
    with session.client() as client:
        adapter, _ = found_version(client, name)
        found = client.layers(adapter.name, adapter.version)
    rows = [
        (one.target, one.method, "x".join(map(str, one.shape)), f"{one.num_coefficients:,}")
        for one in found
    ]
    table = plain_table(("LAYER", "METHOD", "SHAPE", "NUMBERS"), rows)
    session.emit_list([one.raw for one in found], table)
