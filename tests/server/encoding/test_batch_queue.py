"""Which inputs make the next batch: limits, groups, fairness, and nothing starves."""

from hypothesis import given
from hypothesis import strategies as st

from server.encoding.batch_queue import Line, Waiting

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


def test_a_tenants_input_passes_by_another_tenants_many_requests() -> None:
    line: Line[str] = Line(3, 10)
    for number in range(100):
        line.add([Waiting(f"flood{number}", 0, 1, "a")])
    line.next(always)
    line.add([Waiting("late", 0, 1, "b")])
    assert "late" in names(line.next(always))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=20))
def test_tenants_who_wait_get_the_same(requests: list[tuple[str, int]]) -> None:
    line: Line[str] = Line(4, 100)
    for tenant in "ab":
        line.add([Waiting(f"{tenant}{number}", 0, 1, tenant) for number in range(60)])
    for number, (tenant, size) in enumerate(requests):  # more of one makes no difference
        line.add([Waiting(f"{tenant}{number}.{i}", 0, 1, tenant) for i in range(size)])
    taken = [entry.tenant for _ in range(20) for entry in line.next(always)]
    assert abs(taken.count("a") - taken.count("b")) <= 2


def test_who_comes_late_or_could_not_be_served_has_saved_nothing_up() -> None:
    line: Line[str] = Line(4, 100)
    line.add([Waiting(f"a{number}", 0, 1, "a") for number in range(200)])
    line.add([Waiting(f"c{number}", 0, 1, "c") for number in range(50)])
    for _ in range(20):
        assert {entry.tenant for entry in line.next(lambda item: item[0] == "a")} == {"a"}
    line.add([Waiting(f"b{number}", 0, 1, "b") for number in range(50)])
    taken = [entry.tenant for _ in range(15) for entry in line.next(always)]
    assert all(abs(taken.count(tenant) - 20) <= 4 for tenant in "abc")  # a batch


def test_within_a_tenant_one_input_still_passes_by_a_large_request() -> None:
    line: Line[str] = Line(3, 10)
    for tenant in "ab":
        line.add([Waiting(f"{tenant}{number}", 0, 1, tenant) for number in range(50)])
    for _ in range(5):
        line.next(always)
    line.add([Waiting("late", 0, 1, "a")])
    assert "late" in names(line.next(always)) + names(line.next(always))


def test_what_is_taken_out_does_not_come() -> None:
    line: Line[str] = Line(8, 100)
    entries = [Waiting(str(i), 0, 1) for i in range(3)]
    line.add(entries)
    line.remove(entries[1])
    line.remove(entries[1])
    assert names(line.next(always)) == ["0", "2"]
