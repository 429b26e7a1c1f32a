"""Kept prefixes on a real base: the same bits as without them, and never another's."""

from itertools import product

import pytest
import torch
from torch import Tensor

import tiny
from server.adapters.residency import Entry
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import TokenSequence
from server_parts import (
    FOURIERFT,
    LORA,
    PAGE_SIZE,
    Served,
    given,
    greedy,
    prompt_of,
    sample,
    torch_threads,
)

NUM_ADAPTERS = 8
PROMPT = prompt_of(300, 1)


class Kept:
    """One scheduler that goes on from run to run, and what it computed."""

    def __init__(self, served: Served, num_pages: int, max_running: int = 16) -> None:
        self.served = served
        pool = PagePool(num_pages, PAGE_SIZE)
        self.scheduler = Scheduler(pool, 128, max_running)

    def run(self, sequences: list[TokenSequence]) -> tuple[list[Tensor], int]:
        """Return each one's logits `[generated, vocabulary]`, and the prompt tokens computed."""
        logits: dict[TokenSequence, list[Tensor]] = {one: [] for one in sequences}
        computed = 0
        for one in sequences:
            self.scheduler.add(one)
        while batch := self.scheduler.next(0.0):
            rows = self.served.engine.logits(batch)
            told = [work.sequence for work in batch.works if work.samples]
            for one, row in zip(told, rows, strict=True):
                logits[one].append(row.clone())
            computed += sum(work.stop - work.start for work in batch.prefill)
            self.scheduler.advance(batch, [s for s in sample(rows, told) if s])
            self.scheduler.check_integrity()
        return [torch.stack(rows) for rows in logits.values()], computed


@pytest.fixture(scope="module")
def served() -> Served:
    return Served(tiny.model("llama"), num_pages=200)


@pytest.fixture(scope="module")
def leases(served: Served) -> list[Entry | None]:
    made: list[Entry | None] = []
    for seed in range(NUM_ADAPTERS - 1):
        adapter = given(served.spec, (FOURIERFT, LORA)[seed % 2], seed, bases=served.bases)
        entry = served.entry(adapter, "merged" if seed == 3 else "factored")
        entry.key = (f"digest{seed}", "merged" if seed == 3 else "factored")
        made.append(entry)
    return [*made, None]


def asks(
    lease: Entry | None, tenant: str = "", new: int = 4, more: tuple[int, ...] = ()
) -> TokenSequence:
    return TokenSequence(PROMPT + more, greedy(new), lease, tenant=tenant)


def test_the_same_long_prompt_under_eight_adapters_is_eight_answers(
    served: Served, leases: list[Entry | None]
) -> None:
    with torch_threads(1):
        alone = [Kept(served, 100).run([asks(lease)])[0][0] for lease in leases]
        kept = Kept(served, 180)
        cold, computed = kept.run([asks(lease) for lease in leases])
        assert computed == NUM_ADAPTERS * len(PROMPT)
        warm, computed = kept.run([asks(lease) for lease in leases])
        assert computed == NUM_ADAPTERS * (len(PROMPT) % PAGE_SIZE)
        for one, first, second in zip(alone, cold, warm, strict=True):
            assert torch.equal(one, first)
            assert torch.equal(one, second)
        distinct = {tuple(one.argmax(1).tolist()) for one in alone}
        assert len(distinct) == NUM_ADAPTERS


def test_a_common_beginning_is_computed_once_for_all_who_come_together(
    served: Served, leases: list[Entry | None]
) -> None:
    with torch_threads(1):
        tails = [prompt_of(length, length) for length in (1, 7, 40, 70)]
        own = [asks(leases[0], more=tail) for tail in tails]
        together, computed = Kept(served, 100).run(own)
        shared = len(PROMPT) // PAGE_SIZE * PAGE_SIZE
        assert computed == shared + sum(len(PROMPT) - shared + len(tail) for tail in tails)
        for tail, logits in zip(tails, together, strict=True):
            alone, _ = Kept(served, 100).run([asks(leases[0], more=tail)])
            assert torch.equal(alone[0], logits)


def test_another_tenant_computes_its_own(served: Served, leases: list[Entry | None]) -> None:
    kept = Kept(served, 100)
    for tenant, expected in (("a", len(PROMPT)), ("b", len(PROMPT)), ("a", 300 % PAGE_SIZE)):
        assert kept.run([asks(leases[0], tenant)])[1] == expected


def test_preempted_sequences_go_on_with_the_same_bits(
    served: Served, leases: list[Entry | None]
) -> None:
    with torch_threads(1):
        asked = [
            (prompt_of(20 + 9 * i, i), leases[i % NUM_ADAPTERS], tenant)
            for (i, tenant) in product(range(6), ("a", "b"))
        ]

        def sequences() -> list[TokenSequence]:
            return [TokenSequence(p, greedy(60), lease, tenant=t) for p, lease, t in asked]

        crowded = Kept(served, 14)
        logits, _ = crowded.run(sequences())
        assert crowded.scheduler.num_preemptions > 2
        for one, together in zip(sequences(), logits, strict=True):
            assert torch.equal(Kept(served, 100).run([one])[0][0], together)
