"""Which inputs make the next batch: limits, groups, fairness, and nothing starves."""

from hypothesis import given
from hypothesis import strategies as st

from server.encoding.line import Line, Waiting

Request = list[tuple[int, int]]  # group and cost of each input
REQUESTS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=6), max_size=8
)


def line_of(requests: list[Request], max_items: int = 3, max_cost: int = 10) -> Line[str]:
    line: Line[str] = Line(max_items, max_cost)
    for number, request in enumerate(requests):
        line.add([Waiting(f"{number}.{i}", *entry) for i, entry in enumerate(request)])
    return line


def always(item: str) -> bool:
    return True


def names(batch: list[Waiting[str]]) -> list[str]:
    return [entry.item for entry in batch]


@given(REQUESTS)
def test_every_input_is_taken_once_in_batches_of_one_group_within_the_limits(
    requests: list[Request],
) -> None:
    line, taken = line_of(requests), []
    while batch := line.next(always):
        assert len({entry.group for entry in batch}) == 1
        assert len(batch) <= 3
        assert len(batch) == 1 or sum(entry.cost for entry in batch) <= 10
        taken += names(batch)
    expected = [f"{n}.{i}" for n, request in enumerate(requests) for i in range(len(request))]
    assert sorted(taken) == sorted(expected)
    assert len(line) == 0


@given(REQUESTS, st.sets(st.integers(0, 7)))
def test_what_is_not_ready_waits_and_holds_nobody_up(
    requests: list[Request], unready: set[int]
) -> None:
    def is_ready(item: str) -> bool:
        return int(item.partition(".")[0]) not in unready

    line = line_of(requests)
    while batch := line.next(is_ready):
        assert all(is_ready(entry.item) for entry in batch)
    left = sum(len(r) for n, r in enumerate(requests) if n in unready)
    assert len(line) == left


def test_one_input_passes_by_the_rest_of_a_large_request() -> None:
    line = line_of([[(0, 1)] * 50])
    line.next(always)
    line.add([Waiting("late", 0, 1)])
    assert "late" in names(line.next(always))


def test_a_request_of_another_length_passes_by_within_two_batches() -> None:
    line = line_of([[(0, 1)] * 50])
    line.next(always)
    line.add([Waiting("late", 1, 1)])
    assert "late" in names(line.next(always)) + names(line.next(always))


@given(st.integers(1, 5))
def test_the_oldest_goes_on_however_many_arrive(size: int) -> None:
    line = line_of([[(0, 1)] * size])
    for step in range(4 * size):
        line.add([Waiting(f"new{step}.{i}", 1, 1) for i in range(3)])
        line.next(always)
    assert not any(entry.item.startswith("0.") for entry in line.entries)


def test_what_is_taken_out_does_not_come() -> None:
    line: Line[str] = Line(8, 100)
    entries = [Waiting(str(i), 0, 1) for i in range(3)]
    line.add(entries)
    line.remove(entries[1])
    line.remove(entries[1])
    assert names(line.next(always)) == ["0", "2"]
