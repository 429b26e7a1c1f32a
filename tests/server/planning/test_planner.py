"""Which adapters are worth merged weights, by made-up costs, against steps reckoned one by one."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.planning.costs import Costs, Curve, total
from server.planning.planner import Planner, Request

#: Reading an adapter's weights takes 10 ms; from 20 rows on the products take longer than that.
OWN = Curve(((4, 10e-3), (20, 10e-3), (120, 60e-3)))
COSTS = Costs(
    own=OWN,
    split=Curve(((16, 0.2e-3), (64, 0.4e-3))),
    token=Curve(((4, 0.6e-3), (64, 3e-3))),
    prompt=Curve(((16, 1e-3), (128, 8e-3))),
    merged_bytes=100,
    merge_s=50e-3,
)
ROWS = 32


def ask(
    planner: Planner,
    digests: Iterable[str | None],
    costs: Costs | None = COSTS,
    prompt: int = 16,
    answer: int = 64,
) -> list[str]:
    """Ask for each with 31 others beside it; return the modes."""
    return [
        planner.choose(Request(digest, prompt, answer, ROWS - 1, costs if digest else None))
        for digest in digests
    ]


def adapters(count: int, requests: int = 128) -> list[str]:
    return [str(i % count) for i in range(requests)]


def test_an_adapter_alone_is_worth_a_copy() -> None:
    planner = Planner(1000)
    modes = ask(planner, adapters(1))
    assert modes[0] == "factored"
    assert modes[-1] == "merged"
    assert planner.saving > 0


def test_many_equals_are_not() -> None:
    planner = Planner(10_000)
    assert set(ask(planner, adapters(32))) == {"factored"}
    assert planner.saving == 0


def test_rows_of_the_base_make_a_copy_dearer() -> None:
    """Its weights are read beside the base's then, and not instead of them."""
    planner = Planner(1000)
    assert set(ask(planner, ["a", None] * 64)) == {"factored"}


def test_long_prompts_make_it_cheaper() -> None:
    """Short answers to long prompts: their updates cost more than a reading of the weights."""
    traffic, dear = ["a", "b"] * 64, replace(COSTS, prompt=COSTS.prompt.times(4))
    assert set(ask(Planner(1000), traffic, dear, prompt=16, answer=64)) == {"factored"}
    planner = Planner(1000)
    ask(planner, traffic, dear, prompt=512, answer=4)
    assert planner.plan == {"a", "b"}


@pytest.mark.parametrize("capacity", [0, 99])
def test_without_room_for_a_copy_everything_is_factored(capacity: int) -> None:
    assert set(ask(Planner(capacity), adapters(1))) == {"factored"}


def test_what_costs_more_to_merge_than_it_saves_stays_factored() -> None:
    assert set(ask(Planner(1000), adapters(1), replace(COSTS, merge_s=1e3))) == {"factored"}


def test_an_adapter_whose_costs_are_not_known_stays_factored() -> None:
    assert set(ask(Planner(1000), adapters(1), costs=None)) == {"factored"}


def test_a_plan_has_no_more_adapters_than_it_may() -> None:
    cheap = replace(COSTS, own=Curve(((4, 0.1e-3), (120, 60e-3))), split=Curve(((16, 0.0),)))
    free, bound = Planner(10_000), Planner(10_000, most=3)
    ask(free, adapters(6), cheap)
    ask(bound, adapters(6), cheap)
    assert len(free.plan) == 6
    assert len(bound.plan) == 3


def test_a_plan_ends_with_its_traffic() -> None:
    planner = Planner(1000, window=32)
    ask(planner, adapters(1))
    assert planner.plan == {"0"}
    ask(planner, [str(i) for i in range(1, 33)])
    assert planner.plan == frozenset()


def test_of_two_that_are_equally_busy_the_merged_one_stays() -> None:
    """There is room for one copy; their order in the window changes with every request."""
    cheap = replace(COSTS, token=COSTS.token.times(40))  # so dear factored that one copy pays
    planner, plans = Planner(100), set()
    ask(planner, ["a", "b"] * 64, cheap)
    for digest in "ab" * 64:
        ask(planner, [digest], cheap)
        plans.add(planner.plan)
    assert len(plans) == 1
    assert len(plans.pop()) == 1


def step_s(costs: Costs, rows: dict[str, int], merged: Iterable[str]) -> float:
    """Return one step's seconds, group by group: the reference."""
    chosen = [rows[digest] for digest in merged]
    rest = sum(rows.values()) - sum(chosen)
    groups = [*chosen, rest] if rest else chosen
    seconds = sum(costs.own.at(group) for group in groups) + costs.token.at(rest)
    if len(groups) > 1:
        seconds += costs.split.at(sum(rows.values())) * len(groups) / 2
    return seconds


@st.composite
def curves(draw: st.DrawFn, rows: tuple[int, ...], least: float, most: float) -> Curve:
    """Return a curve that rises."""
    steps = [draw(st.floats(least, most)) for _ in rows]
    return Curve(tuple((r, sum(steps[: i + 1])) for i, r in enumerate(rows)))


@st.composite
def some_costs(draw: st.DrawFn) -> Costs:
    return Costs(
        own=draw(curves((4, 16, 64, 128), 1e-4, 0.03)),
        split=draw(curves((16, 64, 128), 0.0, 1e-3)),
        token=draw(curves((4, 16, 64), 1e-5, 0.01)),
        prompt=Curve(((16, 0.0), (64, 0.0))),
        merged_bytes=100,
        merge_s=0.0,
    )


@settings(max_examples=150, deadline=None)
@given(costs=some_costs(), count=st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_no_plan_is_five_percent_slower_than_the_better_mode(costs: Costs, count: int) -> None:
    """Whatever the device's costs: of equal adapters in a full batch, none, some or all."""
    planner = Planner(100 * count)
    ask(planner, adapters(count), costs, prompt=1)
    rows = dict.fromkeys(set(adapters(count)), ROWS // count)
    planned = step_s(costs, rows, planner.plan)
    assert planned <= 1.05 * min(step_s(costs, rows, ()), step_s(costs, rows, rows))


@settings(max_examples=100, deadline=None)
@given(
    requests=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.integers(1, 600)), max_size=90
    ),
    costs=some_costs(),
    capacity=st.integers(0, 400),
    window=st.integers(1, 40),
)
def test_a_plan_fits_the_cache_and_names_recent_adapters(
    requests: list[tuple[str | None, int]], costs: Costs, capacity: int, window: int
) -> None:
    planner = Planner(capacity, window=window)
    for i, (digest, prompt) in enumerate(requests):
        before = planner.plan
        mode = planner.choose(Request(digest, prompt, 8, i % 40, costs if digest else None))
        assert (mode == "merged") == (digest in planner.plan)
        assert 100 * len(planner.plan) <= capacity
        recent = Counter(d for d, _ in requests[max(0, i + 1 - window) : i + 1])
        assert planner.plan == before or planner.plan <= set(recent)
        assert 0 <= planner.saving < 1


def test_a_plan_is_a_function_of_the_requests_alone() -> None:
    traffic = [str(i * i % 7) for i in range(200)]
    assert ask(Planner(300), traffic) == ask(Planner(300), traffic)


def test_a_curve_is_flat_before_its_first_point_and_straight_after() -> None:
    curve = Curve(((4, 1.0), (8, 2.0), (16, 3.0)))
    assert [curve.at(rows) for rows in (0, 1, 4, 6, 8, 12, 16, 24)] == [
        *(0.0, 1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
    ]
    assert Curve(((4, 2.0),)).at(100) == 2.0


def test_curves_of_the_same_rows_add_up() -> None:
    one, two = Curve(((4, 1.0), (8, 2.0))), Curve(((4, 10.0), (8, 20.0)))
    assert total([one, two]) == Curve(((4, 11.0), (8, 22.0)))
    with pytest.raises(ValueError, match="zip"):
        total([one, Curve(((4, 1.0),))])
