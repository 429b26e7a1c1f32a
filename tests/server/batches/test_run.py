"""A batch's time, its tenant and its file; a registry or a disk that is away for a while."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from batches_made import lines, request
from batches_served import (
    SLOW,
    at_end,
    created,
    finalizing,
    num_kept,
    reached,
    results,
    uploaded,
    url_of,
)
from disks import fill, small_disk
from live import BASE, Live, serving, settings_of
from registry import BatchClaims, BatchSpec, RegistryUnavailable
from registry.redis.client import open_client
from server.batches import run
from waiting import until


class Ahead:
    """A clock that shows a later time than the machine's."""

    sleep = staticmethod(time.sleep)

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def time(self) -> float:
        return time.time() + self._seconds


def test_a_batch_whose_time_is_over_keeps_what_is_answered_and_names_the_rest(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = [request(i, max_tokens=1) for i in range(20)]
    slow = [request(i, max_tokens=450, ignore_eos=True) for i in range(20, 400)]
    file = uploaded(live, lines(*quick, *slow))
    spec = BatchSpec("/v1/completions", file.id, BASE, 86_400.0, "")
    record = live.service.registry.batches.create(spec, 400, now=time.time())
    live.app.state.wake_batches()
    until(lambda: num_kept(live, record.id) >= 20)
    monkeypatch.setattr(run, "time", Ahead(86_400.0))
    ended = at_end(live, record.id)

    assert ended.state == "expired"
    output, errors = (results(live, id_) for id_ in (ended.output_file, ended.error_file))
    assert len(output) >= 20
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


def test_a_batch_over_a_file_that_is_gone_from_the_store_fails_and_says_so(live: Live) -> None:
    registry = live.service.registry
    file = uploaded(live, lines(request(0)))
    registry.files.open(file.id).unlink()
    spec = BatchSpec("/v1/completions", file.id, BASE, 86_400.0, "")
    ended = at_end(live, registry.batches.create(spec, 1, now=time.time()).id)

    assert ended.state == "failed"
    assert [fault.code for fault in ended.faults] == ["input_file_lost"]


def test_a_batch_that_was_answered_when_its_file_was_lost_fails_and_says_so(
    serve: Callable[..., Live], tmp_path: Path
) -> None:
    first = serve(data=tmp_path / "data", run_batches=False)
    held = finalizing(first)
    registry = first.service.registry
    registry.batch_claims.release(held.claim)
    registry.files.open(held.spec.input_file).unlink()

    second = serve(data=tmp_path / "data", registry=url_of(first))
    ended = at_end(second, held.id)

    assert ended.state == "failed"
    assert [fault.code for fault in ended.faults] == ["input_file_lost"]


def test_a_batch_that_cannot_be_ended_before_its_server_stops_is_given_back(
    serve: Callable[..., Live], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = serve(data=tmp_path / "data", run_batches=False)
    registry, record = live.service.registry, created(live, 3)
    held = registry.batch_claims.claim(record, "one")
    assert held is not None
    registry.files.open(record.spec.input_file).unlink()

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        one = run.BatchRun(live.service, held, 5, 0.1, *2 * [asyncio.to_thread])

        def away(*_: Any, **__: Any) -> None:
            loop.call_soon_threadsafe(one.stop, "stopping")
            raise RegistryUnavailable("no answer in time")

        monkeypatch.setattr(BatchClaims, "fail", away)
        await one.run()

    asyncio.run(scene())
    found = registry.batches.get(record.id)
    assert (found.state, found.owner) == ("validating", "")


def test_a_registry_that_is_away_costs_a_batch_time_and_no_line(
    serve: Callable[..., Live], tmp_path: Path
) -> None:
    live = serve(data=tmp_path / "data")
    record = created(live, 300, **SLOW)
    until(lambda: num_kept(live, record.id) >= 10)
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
            until(lambda: num_kept(live, record.id) >= 10)
            with suppress(OSError):  # answers come in meanwhile
                fill(disk)
            until(lambda: live.num_open == 0)
            assert num_kept(live, record.id) < 600
            assert not live.service.registry.batches.get(record.id).is_final
            os.truncate(disk / "rubbish", 0)
            ended = at_end(live, record.id)
            assert (ended.state, ended.counts.completed) == ("completed", 600)
            assert ended.error_file is None


@pytest.mark.parametrize("chosen", ["/v1/completions"])
def test_a_servers_own_time_limit_is_not_a_batchs(serve: Callable[..., Live], chosen: str) -> None:
    live = serve(request_timeout_s=0.05)
    ended = at_end(live, created(live, 30, **SLOW).id)

    assert (ended.counts.completed, ended.counts.failed) == (30, 0)
