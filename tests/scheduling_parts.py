"""Small sequences and steps for the tests of what the next step computes."""

from dataclasses import dataclass
from typing import Any

from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampled, Sampling, TokenSequence
from server.scheduling.spare_rows import SpareRows
from server.scheduling.step import Batch

STOP = 9
PAGE_SIZE = 4
NUM_PAGES = 10
MAX_ROWS = 7
MAX_RUNNING = 4


@dataclass
class Adapter:
    """A lease that is ready when the test says so."""

    is_ready: bool = False
    key: str = "adapter"


def sequence(
    prompt: int,
    max_tokens: int = 3,
    lease: Adapter | None = None,
    tenant: str = "",
    first: int = 100,
    **changes: Any,
) -> TokenSequence:
    """Return a sequence whose prompt counts up from `first`."""
    sampling = Sampling(max_tokens=max_tokens, stop_ids=frozenset({STOP}))
    tokens = tuple(range(first, first + prompt))
    return TokenSequence(tokens, sampling, lease, tenant=tenant, **changes)


def scheduler(
    max_rows: int = MAX_ROWS, max_running: int = MAX_RUNNING, spare: SpareRows | None = None
) -> Scheduler:
    return Scheduler(PagePool(NUM_PAGES, PAGE_SIZE), max_rows, max_running, spare=spare)


def step(scheduler: Scheduler, token: int = 1, now: float = 0.0) -> Batch | None:
    batch = scheduler.next(now)
    if batch is not None:
        scheduler.advance(batch, [Sampled(token) for work in batch.works if work.samples])
        scheduler.check_integrity()
    return batch
