"""Short texts do not wait for long ones, and long ones have a bound."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from server.errors import Overloaded
from server.generation.tokenizing import Tokenizing

LONG = 1 << 20


@pytest.fixture
def tokenizing() -> Iterator[Tokenizing]:
    made = Tokenizing(max_waiting=8)
    yield made
    made.close()


def test_a_short_text_does_not_wait_for_long_ones(tokenizing: Tokenizing) -> None:
    go = threading.Event()

    async def both() -> list[int]:
        long = [
            asyncio.create_task(tokenizing.run(LONG, lambda: go.wait(30) and 1)) for _ in range(8)
        ]
        await asyncio.sleep(0)
        short = await asyncio.wait_for(tokenizing.run(10, lambda: 2), 10)
        go.set()
        return [short, *await asyncio.gather(*long)]

    assert asyncio.run(both()) == [2, *[1] * 8]


def test_more_long_texts_than_may_wait_are_refused(tokenizing: Tokenizing) -> None:
    go = threading.Event()

    async def many() -> None:
        tasks = [asyncio.create_task(tokenizing.run(LONG, lambda: go.wait(30))) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="8 long texts wait"):
            await tokenizing.run(LONG, lambda: True)
        go.set()
        assert await asyncio.gather(*tasks) == [True] * 8
        assert await tokenizing.run(LONG, lambda: True)

    asyncio.run(many())


def test_a_long_text_whose_caller_is_gone_is_not_tokenized(tokenizing: Tokenizing) -> None:
    go, begun = threading.Event(), []

    async def gone() -> None:
        running = [
            asyncio.create_task(tokenizing.run(LONG, lambda: go.wait(30)))
            for _ in range(tokenizing._threads._max_workers)
        ]
        waiting = asyncio.create_task(tokenizing.run(LONG, lambda: begun.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        go.set()
        await asyncio.gather(*running)

    asyncio.run(gone())
    assert begun == []
