"""A tenant that floods, on a simulated clock: what its neighbour waits for a first token.

A step takes 30 ms, 2 ms a single token and 1.2 ms a prompt token more: about a two-core machine's
figures for a base of 1024 x 8. What a real server does `overtone bench flood` measures.
"""

from dataclasses import dataclass, field
from random import Random

import pytest

from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampled, Sampling, TokenSequence
from server.scheduling.step import Batch

LIGHT = "light"
PROMPT, NEW = 64, 32
MOST_OPEN = 576
SLOW_RATE = 0.5  # requests a second
SECONDS = 400.0


@dataclass
class Simulation:
    """Requests at random times, 64 + 32 tokens each; `heavy` of them may have a tenant's name."""

    heavy_rate: float
    heavy_tenant: str = "heavy"
    seed: int = 0
    first_tokens_s: list[float] = field(default_factory=list)
    num_heavy: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.scheduler = Scheduler(PagePool(4096, 32), 512, 64)
        light = [(at, LIGHT, True) for at in self._arrivals(SLOW_RATE)]
        heavy = [(at, self.heavy_tenant, False) for at in self._arrivals(self.heavy_rate)]
        self.to_come = sorted(light + heavy)[::-1]
        self.light: set[TokenSequence] = set()
        self.now = 0.0

    def _arrivals(self, rate: float) -> list[float]:
        times = [self.random.expovariate(rate)]
        while times[-1] < SECONDS:
            times.append(times[-1] + self.random.expovariate(rate))
        return times

    def run(self) -> "Simulation":
        while self.now < SECONDS and self.to_come:
            self._accept()
            batch = self.scheduler.next(self.now)
            if batch is None:
                self.now = self.to_come[-1][0]
            else:
                self._step(batch)
        return self

    def _accept(self) -> None:
        while self.to_come and self.to_come[-1][0] <= self.now:
            arrived, tenant, is_light = self.to_come.pop()
            prompt = tuple(self.random.randrange(10_000) for _ in range(PROMPT))
            sampling = Sampling(max_tokens=NEW)
            sequence = TokenSequence(prompt, sampling, None, arrived, tenant)
            num_open = len(self.scheduler.waiting) + len(self.scheduler.running)
            if is_light:
                self.light.add(sequence)
            elif num_open >= MOST_OPEN:
                continue
            self.scheduler.add(sequence)

    def _step(self, batch: Batch) -> None:
        prompt_rows = sum(work.stop - work.start for work in batch.prefill)
        self.now += 0.030 + 0.002 * len(batch.decode) + 0.0012 * prompt_rows
        for work in batch.prefill:
            if work.samples and work.sequence in self.light:
                self.first_tokens_s.append(self.now - work.sequence.arrived)
            self.num_heavy += work.samples and work.sequence not in self.light
        self.scheduler.advance(batch, [Sampled(1) for work in batch.works if work.samples])

    @property
    def p99_s(self) -> float:
        times = sorted(self.first_tokens_s)
        return times[int(0.99 * len(times))]


@pytest.fixture(scope="module")
def beside_an_equal() -> Simulation:
    return Simulation(SLOW_RATE).run()


def test_a_flood_of_fifty_times_costs_a_neighbour_at_most_half_of_its_wait_more(
    beside_an_equal: Simulation,
) -> None:
    flooded = Simulation(50 * SLOW_RATE).run()
    assert len(flooded.first_tokens_s) > 100
    assert flooded.p99_s <= 1.5 * beside_an_equal.p99_s
    assert flooded.num_heavy > 1500, "the flood is served as well"


def test_a_flood_under_ones_own_name_is_waited_for(beside_an_equal: Simulation) -> None:
    flooded = Simulation(50 * SLOW_RATE, heavy_tenant=LIGHT).run()
    assert flooded.p99_s > 20 * beside_an_equal.p99_s
