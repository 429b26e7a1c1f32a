"""A batch's requests are open a few at a time, come again where they can, and are kept once."""

import asyncio
import errno
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batches_made import lines, request
from registry.batches.segments import Answered, Answers, BatchFolders
from registry.common.fence import Fence
from registry.errors import RegistryUnavailable
from server.batches import feed as module
from server.batches.feed import Feed
from server.batches.request_answer import Outcome
from server.batches.source import Source, Sourced
from server.errors import Overloaded

BATCH = "batch_" + "a" * 24
NUM = 40
GOOD = Outcome(200, {"object": "text_completion"})


async def beside(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.to_thread(function, *args)


class Bench:
    """A feed over a file of requests, and what runs them."""

    def __init__(self, folder: Path, width: int = 5, count: int = NUM, **body: Any) -> None:
        self.folder = folder
        self.path = folder / "in.jsonl"
        self.path.write_bytes(lines(*(request(i, **body) for i in range(count))))
        self.answers = BatchFolders(folder / "batches").open(Fence(BATCH, 1), count)
        self.width = width
        self.open = self.most = self.most_bytes = self.bytes = 0
        self.ran: Counter[int] = Counter()

    async def run(self, one: Sourced) -> Outcome:
        self.ran[one.number] += 1
        self.open, self.bytes = self.open + 1, self.bytes + one.size_bytes
        self.most, self.most_bytes = max(self.most, self.open), max(self.most_bytes, self.bytes)
        try:
            await asyncio.sleep(0)
            await self.answer(one)
            return GOOD
        finally:
            self.open, self.bytes = self.open - 1, self.bytes - one.size_bytes

    async def answer(self, one: Sourced) -> None:
        """What a test does while a request runs."""

    def feed(self) -> Feed:
        self.source = Source(self.path, self.answers, beside)
        return Feed(self.source, self.answers, self.run, self.width, beside)

    def close(self) -> None:
        self.answers.close()
        self.source.close()

    def lines(self) -> list[dict[str, Any]]:
        out = self.folder / "out"
        with out.open("wb") as file:
            self.answers.write("output", file)
        return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**options: Any) -> Bench:
        made.append(Bench(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_every_request_runs_once_and_only_so_many_are_open(bench: Callable[..., Bench]) -> None:
    b = bench()

    async def until_all_are_open(one: Sourced) -> None:
        await _until(lambda: b.most == b.width)

    b.answer = until_all_are_open  # type: ignore[method-assign]
    asyncio.run(b.feed().to_end())

    assert b.ran == Counter(range(NUM))
    assert b.most == b.width
    assert [line["custom_id"] for line in b.lines()] == [f"request-{i}" for i in range(NUM)]
    assert b.answers.are_whole


def test_what_is_answered_already_is_not_run(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.answers.add([Answered(number, "output", b"{}") for number in range(0, NUM, 2)])
    asyncio.run(b.feed().to_end())

    assert b.ran == Counter(range(1, NUM, 2))


def test_large_requests_are_open_fewer_at_a_time(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OPEN_BYTES", 25_000)
    b = bench(width=20, count=12, prompt="x" * 10_000)

    async def until_two_are_open(one: Sourced) -> None:
        await _until(lambda: b.most == 2)

    b.answer = until_two_are_open  # type: ignore[method-assign]
    asyncio.run(b.feed().to_end())

    assert b.most == 2
    assert b.most_bytes <= 25_000
    assert b.answers.are_whole


@pytest.mark.parametrize("error", [Overloaded("full"), RegistryUnavailable("away")])
def test_an_error_that_passes_is_no_answer(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    b = bench()

    async def fail_twice(one: Sourced) -> None:
        if one.number == 7 and b.ran[7] <= 2:
            raise error

    b.answer = fail_twice  # type: ignore[method-assign]
    asyncio.run(b.feed().to_end())

    assert b.ran[7] == 3
    assert b.answers.counts.completed == NUM


def test_nothing_is_begun_while_the_feed_is_held(bench: Callable[..., Bench]) -> None:
    b = bench()

    async def scene() -> tuple[list[int], int]:
        feed = b.feed()
        begun: list[int] = []  # when the feed was held

        async def hold(one: Sourced) -> None:
            if b.ran.total() > 10 and not begun:
                feed.hold()
                begun.append(b.ran.total())

        b.answer = hold  # type: ignore[method-assign]
        work = asyncio.create_task(feed.to_end())
        await _until(lambda: bool(begun) and not b.open)
        for _ in range(50):
            await asyncio.sleep(0)
        before = b.ran.total()
        feed.go_on()
        await work
        return begun, before

    begun, before = asyncio.run(scene())
    assert begun == [before]
    assert before <= 10 + b.width
    assert b.ran == Counter(range(NUM))


def test_a_full_disk_is_waited_for_with_all_answers(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.0)
    b = bench()
    add, calls = Answers.add, Counter[str]()

    def full_at_first(self: Answers, some: Any) -> None:
        calls["add"] += 1
        if calls["add"] <= 3:
            raise OSError(errno.ENOSPC, "no space")
        add(self, some)

    monkeypatch.setattr(Answers, "add", full_at_first)
    asyncio.run(b.feed().to_end())

    assert b.ran == Counter(range(NUM))
    assert b.answers.are_whole


def test_while_answers_cannot_be_kept_no_more_are_made_than_fit(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench()

    def full(self: Answers, some: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Answers, "add", full)

    async def scene() -> list[Answered]:
        feed = b.feed()
        work = asyncio.create_task(feed.to_end())
        await _until(lambda: len(feed.unkept) >= b.width and not b.open)
        for _ in range(50):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        return feed.unkept

    unkept = asyncio.run(scene())
    assert b.ran.total() <= 2 * b.width
    assert {one.number for one in unkept} == set(b.ran)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)
