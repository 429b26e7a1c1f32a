"""The output of the commands about stored bytes: tables, and JSON values."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from registry import Registry
from registry.store.standing import Standing, fault_of
from registry.store.unknown import MIN_AGE_S, Unknown

_SHOWN = 200


def summary_of(opened: Registry) -> dict[str, int]:
    """Return how many adapters' blobs, training files and folders the store holds."""
    return {
        "adapters": sum(1 for _ in opened.blobs.all()),
        "training files": sum(1 for _ in opened.files.all()),
        "job folders": sum(1 for _ in opened.job_folders.all()),
        "batch folders": sum(1 for _ in opened.batch_folders.all()),
    }


def standing_values(standing: Standing, summary: Mapping[str, int]) -> dict[str, Any]:
    """Return a standing as values that JSON takes."""
    mark, identity = standing.mark, standing.identity
    return {
        "store": mark and mark.store,
        "belongs to registry": mark and mark.registry,
        "since": mark and _date(mark.since),
        "registry": identity and identity.id,
        "registry's store": identity and identity.store,
        "registry is empty": standing.registry_is_empty,
        **{f"{kind} in the store": count for kind, count in summary.items()},
        "fault": fault_of(standing),
    }


def adoption_text(standing: Standing, summary: Mapping[str, int], fault: str | None) -> str:
    """Return the effects of adopting, for the question before it."""
    held = ", ".join(f"{count} {kind}" for kind, count in summary.items())
    owner = standing.mark and standing.mark.registry
    lines = [
        f"The store holds {held}.",
        f"It belongs to {f'the registry {owner}' if owner else 'no registry yet'}.",
        f"The registry named here {'is empty' if standing.registry_is_empty else 'has records'}.",
    ]
    if fault:
        lines.append(f"As they stand, a server refuses to start: {fault}.")
    lines.append(
        "Adopting makes this registry the store's owner. Nothing is removed; what this registry "
        "does not name stays and is listed by `overtone gc --dry-run`."
    )
    if owner:
        lines.append(
            "Servers and workers on the other registry will refuse to start on this store."
        )
    return "\n".join(lines)


def unknown_values(
    found: Sequence[Unknown], due: Sequence[Unknown], gone: Sequence[Unknown], grace_s: float
) -> dict[str, Any]:
    """Return what `overtone gc` found and did, as JSON values."""
    are_due, are_gone = {each.name for each in due}, {each.name for each in gone}
    return {
        "grace_days": grace_s / 86_400,
        "unknown": [
            {
                "kind": each.kind,
                "name": each.name,
                "size_bytes": each.size_bytes,
                "changed_at": each.changed_at,
                "unknown_since": each.since,
                "is_due": each.name in are_due,
                "is_removed": each.name in are_gone,
            }
            for each in found
        ],
    }


def print_unknown(
    found: Sequence[Unknown], gone: Sequence[Unknown], grace_s: float, now: float
) -> None:
    """Print what has no record, and whether it was removed."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not found:
        console.print("All that lies in the store is named by a record.")
        return
    are_gone = {each.name for each in gone}
    table = Table("what", "name", "bytes", "listed since", "")
    for each in found[:_SHOWN]:
        fate = "removed" if each.name in are_gone else _fate(each, grace_s, now)
        table.add_row(each.kind, each.name, f"{each.size_bytes:,}", _date(each.since), fate)
    console.print(table)
    if len(found) > _SHOWN:
        console.print(f"… and {len(found) - _SHOWN} more; --json lists all")
    console.print(_sums(found, gone))


def _fate(item: Unknown, grace_s: float, now: float) -> str:
    if item.is_due(grace_s, now):
        return "due"
    return f"due {_date(max(item.since + grace_s, item.changed_at + MIN_AGE_S))}"


def _sums(found: Sequence[Unknown], gone: Sequence[Unknown]) -> str:
    kinds = Counter(each.kind for each in found)
    parts = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
    size, freed = (sum(each.size_bytes for each in items) for items in (found, gone))
    return f"{parts}: {size:,} bytes that no record names; {len(gone)} removed ({freed:,} bytes)"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
