"""Send planned requests to a running server, and record the answers and their times.

An open loop sends when a request is due, whether or not earlier ones are answered; a closed loop
keeps a number of clients, each with one request at a time. Times are seconds after the start.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.lib.load import Planned, prompt_of
from bench.lib.stream import Exchange, Wires
from overtone_client import ConnectionFailed, OvertoneError

WRONG_ADAPTER = "wrong_adapter"
WRONG_LENGTH = "wrong_length"
INVALID_RESPONSE = "invalid_response"
TIMEOUT = "timeout"
#: Requests in a row without a connection, after which the server counts as gone.
_GONE = 20
#: A client of a closed loop waits so long after a refusal.
_TURNED_AWAY_S = 0.05


@dataclass(frozen=True)
class Model:
    """What a request may name, and the digest that must answer; None is the base's."""

    name: str
    digest: str | None


@dataclass(frozen=True)
class Seen:
    """One request and its answer.

    Args:
        planned: what was to be sent.
        due_s: when it was to be sent; in a closed loop when its client was free.
        sent_s: when it was sent.
        tokens_s: when each token arrived.
        done_s: when the answer was over.
        code: None for a whole and right answer, else what went wrong.
    """

    planned: Planned
    due_s: float
    sent_s: float
    tokens_s: tuple[float, ...]
    done_s: float
    code: str | None


@dataclass
class Record:
    """All requests of a run.

    Args:
        seen: one for each request that was sent.
        dropped: requests of an open loop that were due while too many were outstanding.
        window_s: the measured time: from the start until nothing more was sent, or, where a number
            of requests ended the run, until the last answer.
    """

    seen: list[Seen] = field(default_factory=list)
    dropped: int = 0
    window_s: float = 0.0


@dataclass(frozen=True)
class Target:
    """The server and how it is asked.

    Args:
        wires: connections to it.
        models: what may be asked for, by rank.
        seed: of the prompts.
        vocabulary: prompts are random token ids below this.
        timeout_s: an answer that takes longer is given up.
    """

    wires: Wires
    models: Sequence[Model]
    seed: int
    vocabulary: int = 256
    timeout_s: float = 120.0

    async def ask(self, planned: Planned, start: float, due_s: float) -> Seen:
        """Send one request and return its record; nothing is raised but a cancellation."""
        sent = time.perf_counter()
        tokens: tuple[float, ...] = ()
        try:
            async with asyncio.timeout(self.timeout_s):
                exchange = await self.wires.request("POST", "/v1/completions", self._body(planned))
            tokens, code = _read(exchange, self.models[planned.adapter], planned.max_tokens)
        except TimeoutError:
            code = TIMEOUT
        except OvertoneError as error:
            code = error.code
        except (ValueError, LookupError, TypeError):  # of an answer that is no Overtone server's
            code = INVALID_RESPONSE
        after = tuple(at - start for at in tokens)
        return Seen(planned, due_s, sent - start, after, time.perf_counter() - start, code)

    def _body(self, planned: Planned) -> dict[str, Any]:
        return {
            "model": self.models[planned.adapter].name,
            "prompt": prompt_of(planned, self.seed, self.vocabulary),
            "max_tokens": planned.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@asynccontextmanager
async def connected(url: str, api_key: str | None) -> AsyncIterator[Wires]:
    """Connections that are ended with the block."""
    wires = Wires(url, api_key)
    try:
        yield wires
    finally:
        wires.close()


def _read(exchange: Exchange, model: Model, wanted: int) -> tuple[tuple[float, ...], str | None]:
    """Return when each token came, and what is wrong with the answer, if anything is."""
    if exchange.status != 200:
        return (), _code_of(json.loads(exchange.body()))
    events = [(at, data) for at, data in exchange.events() if data != b"[DONE]"]
    if not events:
        return (), INVALID_RESPONSE
    last = json.loads(events[-1][1])
    if "error" in last:
        return tuple(at for at, _ in events[:-1]), _code_of(last)
    tokens = tuple(at for at, _ in events[:-1])  # the last event has the usage and no token
    digests = {json.loads(data)["overtone"]["digest"] for data in (events[0][1], events[-1][1])}
    if digests != {model.digest}:
        return tokens, WRONG_ADAPTER
    is_whole = last["usage"]["completion_tokens"] == wanted == len(tokens)
    return tokens, None if is_whole else WRONG_LENGTH


def _code_of(body: Any) -> str:
    return str(body["error"]["code"]) if isinstance(body, dict) else INVALID_RESPONSE


@dataclass(frozen=True)
class Ending:
    """When sending stops: after so many seconds, so many requests, or what comes first."""

    duration_s: float | None = None
    requests: int | None = None

    def of(self, requests: Iterator[Planned]) -> Iterator[Planned]:
        """Return no more requests than wanted."""
        return itertools.islice(requests, self.requests)

    def is_over(self, at_s: float) -> bool:
        """Return whether nothing is to be sent any more."""
        return self.duration_s is not None and at_s >= self.duration_s


Tell = Callable[[Record], None]


async def closed_loop(
    target: Target,
    requests: Iterator[Planned],
    clients: int,
    ending: Ending,
    tell: Tell = lambda record: None,
) -> Record:
    """Keep `clients` requests open until the ending; return what was seen."""
    record, start = Record(), time.perf_counter()
    left = ending.of(requests)

    async def client() -> None:
        for planned in left:
            due = time.perf_counter() - start
            if ending.is_over(due) or _is_gone(record):
                return
            record.seen.append(await target.ask(planned, start, due))
            tell(record)
            if record.seen[-1].code is not None:
                await asyncio.sleep(_TURNED_AWAY_S)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(client())
    return _closed(record, ending)


async def open_loop(
    target: Target,
    requests: Iterator[Planned],
    most_outstanding: int,
    ending: Ending,
    tell: Tell = lambda record: None,
) -> Record:
    """Send each request when it is due; one that finds too many outstanding is dropped, counted."""
    record, start = Record(), time.perf_counter()
    outstanding: set[asyncio.Task[None]] = set()

    async def one(planned: Planned) -> None:
        record.seen.append(await target.ask(planned, start, planned.at_s))
        tell(record)

    async with asyncio.TaskGroup() as group:
        for planned in ending.of(requests):
            if ending.is_over(planned.at_s) or _is_gone(record):
                break
            await asyncio.sleep(planned.at_s - (time.perf_counter() - start))
            if len(outstanding) >= most_outstanding:
                record.dropped += 1
                continue
            task = group.create_task(one(planned))
            outstanding.add(task)
            task.add_done_callback(outstanding.discard)
    return _closed(record, ending)


def _is_gone(record: Record) -> bool:
    """Return whether the server is gone: the last requests could not connect."""
    last = record.seen[-_GONE:]
    return len(last) == _GONE and all(seen.code == ConnectionFailed.code for seen in last)


def _closed(record: Record, ending: Ending) -> Record:
    """Set the window. Raises ConnectionFailed when the server has gone."""
    if _is_gone(record):
        raise ConnectionFailed(
            f"the server has gone: the last {_GONE} requests could not connect. "
            "Start it again and repeat the run"
        )
    ended = max((seen.done_s for seen in record.seen), default=0.0)
    durations = [] if ending.duration_s is None else [ending.duration_s]
    is_counted = ending.requests is not None or not durations
    record.window_s = min([*durations, *([ended] if is_counted else [])])
    return record
