"""Batches of a server in this process: made, waited for, and read."""

import json
import time
from contextlib import suppress
from typing import Any

from batches_made import lines, request
from live import BASE, Live
from registry import BatchRecord, BatchSpec, FileRecord, RegistryUnavailable
from registry.batches.record import State
from server.api.routes.files import _facts_of_batch
from waiting import until

SLOW = {"max_tokens": 50, "ignore_eos": True}


def uploaded(live: Live, content: bytes, tenant: str = "") -> FileRecord:
    """Put a file of requests as an upload does."""
    files = live.service.registry.files
    path = files.begin()
    path.write_bytes(content)
    words = {"filename": "in.jsonl", "purpose": "batch", "created_by": tenant}
    facts = _facts_of_batch(path, live.settings)
    return files.put(path, facts=facts, now=time.time(), **words)


def created(
    live: Live, count: int = 20, window_s: float = 86_400.0, tenant: str = "", **body: Any
) -> BatchRecord:
    made = [request(i, **body) for i in range(count)]
    file = uploaded(live, lines(*made), tenant)
    spec = BatchSpec("/v1/completions", file.id, BASE, window_s, tenant)
    record = live.service.registry.batches.create(spec, count, now=time.time())
    live.app.state.wake_batches()
    return record


def at_end(live: Live, id_: str) -> BatchRecord:
    def ended() -> BatchRecord | None:
        with suppress(RegistryUnavailable):
            record = live.service.registry.batches.get(id_)
            return record if record.is_final else None
        return None

    found = until(ended)
    assert found is not None
    return found


def results(live: Live, id_: str | None) -> list[dict[str, Any]]:
    if id_ is None:
        return []
    text = live.service.registry.files.open(id_).read_text()
    return [json.loads(line) for line in text.splitlines()]


def reached(live: Live, id_: str, state: State) -> bool:
    return live.service.registry.batches.get(id_).state == state


def num_kept(live: Live, id_: str) -> int:
    folders = dict(live.service.registry.batch_folders.all())
    segments = folders[id_].glob("*.part") if id_ in folders else []
    return sum(segment.read_bytes().count(b"\n") for segment in segments)


def finalizing(live: Live) -> BatchRecord:
    """Return a claimed batch of three requests, all said to be answered."""
    claims = live.service.registry.batch_claims
    held = claims.claim(created(live, 3), "one")
    assert held is not None
    return claims.finalize(claims.begin(held, now=time.time()), now=time.time())


def url_of(live: Live) -> str:
    server = live.service.registry.server
    assert server is not None
    return server.url
