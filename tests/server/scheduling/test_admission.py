"""A tenant's queue is its own; who is refused hears when it is worth to come back."""

import pytest

from server.errors import Overloaded
from server.scheduling.admission import OpenRequests


def test_a_full_tenant_is_refused_and_another_is_not() -> None:
    opened = OpenRequests(2, "sequences")
    for _ in range(2):
        opened.begin("one", 0.0)
    with pytest.raises(Overloaded, match="2 sequences are open, the limit is 2"):
        opened.begin("one", 0.0)
    opened.begin("other", 0.0)
    opened.end("one", 1.0)
    opened.begin("one", 1.0)
    assert opened.total == 3


def test_all_tenants_together_have_a_limit_too() -> None:
    opened = OpenRequests(1, "sequences")
    for i in range(4):
        opened.begin(str(i), 0.0)
    with pytest.raises(Overloaded, match="4 sequences are open"):
        opened.begin("fifth", 0.0)


@pytest.mark.parametrize(("pace_s", "wait_s"), [(0.001, 1), (2.0, 4), (100.0, 60)])
def test_the_wait_follows_the_pace_at_which_sequences_end(pace_s: float, wait_s: int) -> None:
    opened, now = OpenRequests(20, "sequences"), 0.0
    for _ in range(30):
        opened.begin("a", now)
        opened.end("a", now)
        now += pace_s
    for _ in range(20):
        opened.begin("a", now)
    with pytest.raises(Overloaded) as refused:
        opened.begin("a", now)
    assert refused.value.retry_after_s == wait_s


def test_nobody_is_remembered_who_has_nothing_open() -> None:
    opened = OpenRequests(2, "sequences")
    for i in range(100):
        opened.begin(str(i), 0.0)
        opened.end(str(i), 0.0)
    assert not opened._open
