"""Fleets: every request is served once, memories hold, waits are those of queueing theory."""

import math
import statistics
from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.lib.load import Lengths, Load, Planned
from bench.simulation.costs import Costs, Limits
from bench.simulation.figures import figures
from bench.simulation.fleet import Fleet
from bench.simulation.placement import homes_of, policies
from bench.simulation.replica import Replica, Request
from server.planning.costs import Curve

POLICIES = list(policies([], 0))
ONE = Lengths("fixed", (1,))


class Watched(Replica):
    """A replica that checks itself whenever something begins there."""

    most_bytes = most_running = 0

    def begin_step(self) -> float | None:
        seconds = super().begin_step()
        self.most_bytes = max(self.most_bytes, self.residency.num_bytes)
        self.most_running = max(self.most_running, len(self._decoding) + len(self._prompts))
        assert all(adapter in self.residency for adapter in self._adapters)
        return seconds


def costs_of(adapter_bytes: int, load_s: float = 0.3) -> Costs:
    return Costs(Curve(((1, 0.02), (8, 0.05), (40, 0.2))), 0.01, load_s, adapter_bytes)


def plan_of(load: Load, seed: int, count: int) -> list[Planned]:
    return list(islice(load.requests(seed), count))


@st.composite
def scenes(draw: st.DrawFn) -> tuple[list[Planned], list[Watched], str, int]:
    """Requests, replicas, a policy's name and its seed."""
    size = draw(st.integers(1, 40))
    limits = Limits(draw(st.integers(size, 200)), running=draw(st.integers(1, 6)), rows=8)
    costs = costs_of(size, draw(st.sampled_from([0.0, 0.3])))
    replicas = [Watched(costs, limits) for _ in range(draw(st.integers(1, 5)))]
    lengths = Lengths("uniform", (1, draw(st.integers(1, 30))))
    skew, rate = draw(st.floats(0, 2)), draw(st.floats(0.5, 100))
    load = Load(draw(st.integers(1, 12)), skew, lengths, lengths, rate)
    seed = draw(st.integers(0, 1000))
    return (
        plan_of(load, seed, draw(st.integers(1, 60))),
        replicas,
        draw(st.sampled_from(POLICIES)),
        seed,
    )


def served_by(
    replicas: Sequence[Replica], plan: Sequence[Planned], name: str, seed: int
) -> list[Request]:
    policy = policies(homes_of(12, len(replicas)), seed)[name]
    fleet = Fleet(replicas, policy.place)
    fleet.warm([one.adapter for one in plan[::2]])
    return fleet.serve(plan)


@settings(max_examples=40)
@given(scenes())
def test_every_request_is_served_once_and_no_memory_overflows(
    scene: tuple[list[Planned], list[Watched], str, int],
) -> None:
    plan, replicas, name, seed = scene
    served = served_by(replicas, plan, name, seed)
    assert [one.planned for one in served] == plan
    least = replicas[0].costs.step.at(1)
    for one in served:
        assert one.first_token_s >= one.planned.at_s + least - 1e-9
        assert one.done_s >= one.first_token_s + least * (one.planned.max_tokens - 1) - 1e-9
    tokens = sum(number for replica in replicas for _, number in replica.tokens)
    assert tokens == sum(one.max_tokens for one in plan)
    for replica in replicas:
        assert replica.most_bytes <= replica.limits.memory
        assert replica.most_running <= replica.limits.running
        assert not any(replica.residency._used.values())


@settings(max_examples=40)
@given(scenes())
def test_equal_seeds_are_equal_results(
    scene: tuple[list[Planned], list[Watched], str, int],
) -> None:
    plan, replicas, name, seed = scene
    again = [Replica(replica.costs, replica.limits) for replica in replicas]
    first = served_by(replicas, plan, name, seed)
    assert first == served_by(again, plan, name, seed)
    assert figures(first, replicas) == figures(first, again)


def waits(plan: Sequence[Planned], step_s: float) -> list[float]:
    """Return what each request waits in one replica that runs one at a time."""
    costs = Costs(Curve(((1, step_s),)), 0.0, 0.0, 1)
    fleet = Fleet([Replica(costs, Limits(1, running=1, rows=2))], lambda adapter, queues: 0)
    fleet.fill([0])
    return [one.first_token_s - step_s - one.planned.at_s for one in fleet.serve(plan)]


@given(st.integers(0, 1000), st.floats(1, 60), st.integers(1, 9))
def test_one_at_a_time_waits_as_lindleys_recursion_says(
    seed: int, rate: float, longest: int
) -> None:
    """W' = max(0, W + S - A), exactly: Lindley, 1952."""
    plan = plan_of(Load(1, 0.0, ONE, Lengths("uniform", (1, longest)), rate), seed, 50)
    wait, expected = 0.0, [0.0]
    for one, after in zip(plan, plan[1:], strict=False):
        wait = max(0.0, wait + 0.01 * one.max_tokens - (after.at_s - one.at_s))
        expected.append(wait)
    assert waits(plan, 0.01) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("load", "output"), [(0.3, "fixed:1"), (0.6, "fixed:1"), (0.8, "fixed:1"), (0.6, "uniform:1:5")]
)
def test_the_mean_wait_is_pollaczek_and_khinchines(load: float, output: str) -> None:
    """M/D/1 and M/G/1: rate E[S²] / 2(1 - load), within five standard errors of 40 batches."""
    lengths, step_s = Lengths.parse(output), 0.01
    sizes = [1] if output == "fixed:1" else list(range(1, 6))
    mean, square = statistics.fmean(sizes), statistics.fmean(n * n for n in sizes)
    rate = load / (step_s * mean)
    found = waits(plan_of(Load(1, 0.0, ONE, lengths, rate), 5, 14_000), step_s)[2_000:]
    batches = [statistics.fmean(found[i : i + 300]) for i in range(0, len(found), 300)]
    error = statistics.stdev(batches) / math.sqrt(len(batches))
    expected = rate * square * step_s**2 / (2 * (1 - load))
    assert error < 0.2 * expected
    assert statistics.fmean(found) == pytest.approx(expected, abs=5 * error)


def test_requests_of_one_adapter_share_its_load_and_later_ones_find_it() -> None:
    replica = Replica(costs_of(10), Limits(10))
    plan = [Planned(0, 0.0, 3, 1, 1), Planned(1, 0.1, 3, 1, 1), Planned(2, 9.0, 3, 1, 1)]
    served = Fleet([replica], lambda adapter, queues: 0).serve(plan)
    assert replica.loads == 1
    assert [one.is_cold for one in served] == [True, True, False]
    assert [one.done_s for one in served] == pytest.approx([0.3257142857] * 2 + [9.02], abs=0.01)


def test_a_load_waits_until_an_adapter_is_out_of_use() -> None:
    replica = Replica(costs_of(10, load_s=0.0), Limits(10))
    plan = [Planned(0, 0.0, 0, 1, 50), Planned(1, 0.0, 1, 1, 1)]
    first, second = Fleet([replica], lambda adapter, queues: 0).serve(plan)
    assert second.first_token_s == pytest.approx(first.done_s + 0.02)
    assert replica.loads == 2


def test_a_long_prompt_takes_several_steps() -> None:
    replica = Replica(costs_of(10, load_s=0.0), Limits(10, rows=8))
    [one] = Fleet([replica], lambda adapter, queues: 0).serve([Planned(0, 0.0, 0, 17, 2)])
    assert one.first_token_s == pytest.approx(2 * 0.05 + 0.02)
    assert one.done_s == pytest.approx(2 * 0.05 + 2 * 0.02)


def test_adapters_that_are_apart_cost_a_step_more() -> None:
    costs = costs_of(1)
    assert costs.seconds(8, 1) == pytest.approx(0.05)
    assert costs.seconds(8, 5) == pytest.approx(0.05 + 4 * 0.01)


@settings(max_examples=20)
@given(st.integers(1, 5))
def test_figures_count_what_the_fleet_did(count: int) -> None:
    replicas = [Replica(costs_of(1, load_s=0.0), Limits(100)) for _ in range(count)]
    plan = [Planned(n, float(n), 0, 3, 2) for n in range(40)]
    fleet = Fleet(replicas, lambda adapter, queues: 0)
    found = figures(fleet.serve(plan), replicas)
    assert found["imbalance"] == pytest.approx(count)
    assert found["cold_loads_per_request"] == 1 / 40
    assert found["first_token_p50_s"] == pytest.approx(replicas[0].costs.step.at(3))
    assert found["tokens_s"] == pytest.approx(2, rel=0.05)
