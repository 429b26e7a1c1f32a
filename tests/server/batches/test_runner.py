"""A server runs the batches of several tenants, and goes on after what a crash or a fault left."""

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batches_served import SLOW, at_end, created, reached, url_of
from live import Live
from registry import BatchFolders
from registry.batches.segments import Answers
from waiting import until


def test_tenants_batches_run_beside_each_other(live: Live) -> None:
    long = created(live, 300, tenant="long", **SLOW)
    until(lambda: reached(live, long.id, "in_progress"))
    short = created(live, 5, tenant="short", max_tokens=2)

    assert at_end(live, short.id).state == "completed"
    assert not live.service.registry.batches.get(long.id).is_final
    live.service.registry.batches.cancel(long.id, now=time.time())
    live.app.state.wake_batches()
    assert at_end(live, long.id).state == "cancelled"


def test_folders_that_a_crash_left_of_ended_batches_go_at_the_next_start(
    serve: Callable[..., Live], tmp_path: Path
) -> None:
    first = serve(data=tmp_path / "data", run_batches=False)
    record = created(first, 3)
    folders = first.service.registry.batch_folders
    folders.open(record.claim, 3).close()
    first.service.registry.batches.cancel(record.id, now=time.time())
    assert [id_ for id_, _ in folders.all()] == [record.id]

    second = serve(data=tmp_path / "data", registry=url_of(first))
    until(lambda: not list(second.service.registry.batch_folders.all()))


def test_a_store_that_cannot_be_listed_for_a_while_ends_no_batches(
    serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, calls = BatchFolders.all, Counter[str]()

    def stale_at_first(self: BatchFolders) -> Iterator[tuple[str, Path]]:
        calls["all"] += 1
        if calls["all"] <= 2:
            raise OSError(errno.ESTALE, "stale file handle")
        return found(self)

    monkeypatch.setattr(BatchFolders, "all", stale_at_first)
    live = serve()

    assert at_end(live, created(live, 3, max_tokens=1).id).state == "completed"
    assert calls["all"] == 3


def test_batches_whose_results_are_long_in_writing_are_not_silent(
    serve: Callable[..., Live], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write, begun = threading.Event(), Answers.write, Counter[str]()

    def slow(self: Answers, *args: Any) -> int:
        begun["write"] += 1
        written.wait(60)
        return write(self, *args)

    monkeypatch.setattr(Answers, "write", slow)
    live = serve(batch_lost_after_s=1)
    records = [created(live, 3, tenant=tenant, max_tokens=1) for tenant in ("a", "b")]
    batches = live.service.registry.batches

    def least_beats() -> int:
        return min(batches.get(one.id).beats for one in records)

    until(lambda: begun["write"] == 2)
    before = max(batches.get(one.id).beats for one in records)
    try:
        until(lambda: least_beats() > before + 2, 20)
    finally:
        written.set()

    ended = [at_end(live, one.id) for one in records]
    assert [(one.state, one.fence) for one in ended] == [("completed", 1)] * 2
