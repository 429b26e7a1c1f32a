"""A server's batches: their time, their tenant, a registry or a disk that is away for a while."""

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batches_made import lines, request
from disks import fill, small_disk
from live import BASE, Live, serving, settings_of
from registry import BatchRecord, BatchSpec, FileRecord, RegistryUnavailable
from registry.batches.record import State
from registry.redis.client import open_client
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


def test_a_batch_whose_time_is_over_keeps_what_is_answered_and_names_the_rest(live: Live) -> None:
    quick = [request(i, max_tokens=1) for i in range(20)]
    slow = [request(i, max_tokens=450, ignore_eos=True) for i in range(20, 400)]
    file = uploaded(live, lines(*quick, *slow))
    spec = BatchSpec("/v1/completions", file.id, BASE, 6.0, "")
    record = live.service.registry.batches.create(spec, 400, now=time.time())
    live.app.state.wake_batches()
    ended = at_end(live, record.id)

    assert ended.state == "expired"
    output, errors = (results(live, id_) for id_ in (ended.output_file, ended.error_file))
    assert output, "the first ones are answered at once"
    told = [(line["response"], line["error"]["code"]) for line in errors]
    assert set(map(str, told)) == {str((None, "batch_expired"))}
    names = [line["custom_id"] for line in (*output, *errors)]
    assert sorted(names) == sorted(f"request-{i}" for i in range(400))
    assert (ended.counts.completed, ended.counts.failed) == (len(output), len(errors))


def test_a_batch_that_waited_too_long_is_expired_without_running(live: Live) -> None:
    ended = at_end(live, created(live, 5, window_s=-1.0).id)

    assert ended.state == "expired"
    assert (ended.counts.completed, ended.counts.failed) == (0, 5)


def test_results_belong_to_the_tenant_that_has_the_batch_when_it_ends(live: Live) -> None:
    record = created(live, 60, tenant="old", **SLOW)
    until(lambda: reached(live, record.id, "in_progress"))
    live.service.registry.tenants.rename("old", "new")
    ended = at_end(live, record.id)

    assert ended.spec.created_by == "new"
    assert ended.output_file is not None
    assert live.service.registry.files.get(ended.output_file).created_by == "new"
    found = live.service.registry.files.list(10, created_by="new")
    assert {one.id for one in found} == {ended.output_file, record.spec.input_file}


def test_tenants_batches_run_beside_each_other(live: Live) -> None:
    long = created(live, 300, tenant="long", **SLOW)
    until(lambda: reached(live, long.id, "in_progress"))
    short = created(live, 5, tenant="short", max_tokens=2)

    assert at_end(live, short.id).state == "completed"
    assert not live.service.registry.batches.get(long.id).is_final
    live.service.registry.batches.cancel(long.id, now=time.time())
    live.app.state.wake_batches()
    assert at_end(live, long.id).state == "cancelled"


def test_a_batch_over_a_file_that_is_gone_from_the_store_fails_and_says_so(live: Live) -> None:
    registry = live.service.registry
    file = uploaded(live, lines(request(0)))
    registry.files.open(file.id).unlink()
    spec = BatchSpec("/v1/completions", file.id, BASE, 86_400.0, "")
    ended = at_end(live, registry.batches.create(spec, 1, now=time.time()).id)

    assert ended.state == "failed"
    assert [fault.code for fault in ended.faults] == ["input_file_lost"]


def test_folders_that_a_crash_left_of_ended_batches_go_at_the_next_start(
    serve: Callable[..., Live], tmp_path: Path
) -> None:
    first = serve(data=tmp_path / "data", run_batches=False)
    record = created(first, 3)
    folders = first.service.registry.batch_folders
    folders.open(record.claim, 3).close()
    first.service.registry.batches.cancel(record.id, now=time.time())
    assert [id_ for id_, _ in folders.all()] == [record.id]

    second = serve(data=tmp_path / "data", registry=_url_of(first))
    until(lambda: not list(second.service.registry.batch_folders.all()))


def _url_of(live: Live) -> str:
    server = live.service.registry.server
    assert server is not None
    return server.url


def test_a_registry_that_is_away_costs_a_batch_time_and_no_line(
    serve: Callable[..., Live], tmp_path: Path
) -> None:
    live = serve(data=tmp_path / "data")
    record = created(live, 300, **SLOW)
    until(lambda: _num_kept(live, record.id) >= 10)
    embedded = live.service.registry.server
    assert embedded is not None
    with open_client(embedded.url) as client:
        client.execute_command("CLIENT", "PAUSE", "3000", "ALL")  # longer than is waited for
    ended = at_end(live, record.id)

    assert (ended.state, ended.counts.completed) == ("completed", 300)
    assert ended.error_file is None
    assert ended.fence == 1


def test_a_full_disk_costs_a_batch_time_and_no_line(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "48m") as disk:
        settings = settings_of(
            base_folder("llama"), disk / "data", calibration_s=0, reserve_bytes=6 << 20
        )
        with serving(settings) as live:
            record = created(live, 600, **SLOW)
            until(lambda: _num_kept(live, record.id) >= 10)
            with suppress(OSError):  # answers come in meanwhile
                fill(disk)
            until(lambda: live.num_open == 0)
            assert _num_kept(live, record.id) < 600
            assert not live.service.registry.batches.get(record.id).is_final
            os.truncate(disk / "rubbish", 0)
            ended = at_end(live, record.id)
            assert (ended.state, ended.counts.completed) == ("completed", 600)
            assert ended.error_file is None


def _num_kept(live: Live, id_: str) -> int:
    folders = dict(live.service.registry.batch_folders.all())
    segments = folders[id_].glob("*.part") if id_ in folders else []
    return sum(segment.read_bytes().count(b"\n") for segment in segments)


@pytest.mark.parametrize("chosen", ["/v1/completions"])
def test_a_servers_own_time_limit_is_not_a_batchs(serve: Callable[..., Live], chosen: str) -> None:
    live = serve(request_timeout_s=0.05)
    ended = at_end(live, created(live, 30, **SLOW).id)

    assert (ended.counts.completed, ended.counts.failed) == (30, 0)
