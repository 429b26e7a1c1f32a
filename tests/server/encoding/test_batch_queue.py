"""Which inputs make the next batch: limits, groups, fairness, and nothing starves."""

from hypothesis import given
from hypothesis import strategies as st

from server.encoding.batch_queue import BatchQueue, QueuedInput

Request = list[tuple[int, int]]  # group and cost of each input
REQUESTS = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=1, max_size=6), max_size=8
)


def queue_of(requests: list[Request], max_items: int = 3, max_cost: int = 10) -> BatchQueue[str]:
    queue: BatchQueue[str] = BatchQueue(max_items, max_cost)
    for number, request in enumerate(requests):
        queue.add([QueuedInput(f"{number}.{i}", *entry) for i, entry in enumerate(request)])
    return queue


def always(item: str) -> bool:
    return True


def names(batch: list[QueuedInput[str]]) -> list[str]:
    return [entry.item for entry in batch]


@given(REQUESTS)
def test_every_input_is_taken_once_in_batches_of_one_group_within_the_limits(
    requests: list[Request],
) -> None:
    queue, taken = queue_of(requests), []
    while batch := queue.next(always):
        assert len({entry.group for entry in batch}) == 1
        assert len(batch) <= 3
        assert len(batch) == 1 or sum(entry.cost for entry in batch) <= 10
        taken += names(batch)
    expected = [f"{n}.{i}" for n, request in enumerate(requests) for i in range(len(request))]
    assert sorted(taken) == sorted(expected)
    assert len(queue) == 0


@given(REQUESTS, st.sets(st.integers(0, 7)))
def test_what_is_not_ready_waits_and_holds_nobody_up(
    requests: list[Request], unready: set[int]
) -> None:
    def is_ready(item: str) -> bool:
        return int(item.partition(".")[0]) not in unready

    queue = queue_of(requests)
    while batch := queue.next(is_ready):
        assert all(is_ready(entry.item) for entry in batch)
    left = sum(len(r) for n, r in enumerate(requests) if n in unready)
    assert len(queue) == left


def test_one_input_passes_by_the_rest_of_a_large_request() -> None:
    queue = queue_of([[(0, 1)] * 50])
    queue.next(always)
    queue.add([QueuedInput("late", 0, 1)])
    assert "late" in names(queue.next(always))


def test_a_request_of_another_length_passes_by_within_two_batches() -> None:
    queue = queue_of([[(0, 1)] * 50])
    queue.next(always)
    queue.add([QueuedInput("late", 1, 1)])
    assert "late" in names(queue.next(always)) + names(queue.next(always))


@given(st.integers(1, 5))
def test_the_oldest_goes_on_however_many_arrive(size: int) -> None:
    queue = queue_of([[(0, 1)] * size])
    for step in range(4 * size):
        queue.add([QueuedInput(f"new{step}.{i}", 1, 1) for i in range(3)])
        queue.next(always)
    assert not any(entry.item.startswith("0.") for entry in queue.entries)


def test_a_tenants_input_passes_by_another_tenants_many_requests() -> None:
    queue: BatchQueue[str] = BatchQueue(3, 10)
    for number in range(100):
        queue.add([QueuedInput(f"flood{number}", 0, 1, "a")])
    queue.next(always)
    queue.add([QueuedInput("late", 0, 1, "b")])
    assert "late" in names(queue.next(always))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 9)), max_size=20))
def test_tenants_who_wait_get_the_same(requests: list[tuple[str, int]]) -> None:
    queue: BatchQueue[str] = BatchQueue(4, 100)
    for tenant in "ab":
        queue.add([QueuedInput(f"{tenant}{number}", 0, 1, tenant) for number in range(60)])
    for number, (tenant, size) in enumerate(requests):  # more of one makes no difference
        queue.add([QueuedInput(f"{tenant}{number}.{i}", 0, 1, tenant) for i in range(size)])
    taken = [entry.tenant for _ in range(20) for entry in queue.next(always)]
    assert abs(taken.count("a") - taken.count("b")) <= 2


def test_who_comes_late_or_could_not_be_served_has_saved_nothing_up() -> None:
    queue: BatchQueue[str] = BatchQueue(4, 100)
    queue.add([QueuedInput(f"a{number}", 0, 1, "a") for number in range(200)])
    queue.add([QueuedInput(f"c{number}", 0, 1, "c") for number in range(50)])
    for _ in range(20):
        assert {entry.tenant for entry in queue.next(lambda item: item[0] == "a")} == {"a"}
    queue.add([QueuedInput(f"b{number}", 0, 1, "b") for number in range(50)])
    taken = [entry.tenant for _ in range(15) for entry in queue.next(always)]
    assert all(abs(taken.count(tenant) - 20) <= 4 for tenant in "abc")  # a batch


def test_within_a_tenant_one_input_still_passes_by_a_large_request() -> None:
    queue: BatchQueue[str] = BatchQueue(3, 10)
    for tenant in "ab":
        queue.add([QueuedInput(f"{tenant}{number}", 0, 1, tenant) for number in range(50)])
    for _ in range(5):
        queue.next(always)
    queue.add([QueuedInput("late", 0, 1, "a")])
    assert "late" in names(queue.next(always)) + names(queue.next(always))


def test_what_is_taken_out_does_not_come() -> None:
    queue: BatchQueue[str] = BatchQueue(8, 100)
    entries = [QueuedInput(str(i), 0, 1) for i in range(3)]
    queue.add(entries)
    queue.remove(entries[1])
    queue.remove(entries[1])
    assert names(queue.next(always)) == ["0", "2"]
