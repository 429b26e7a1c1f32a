"""A tenant's queue is its own; who is refused hears when it is worth to come back."""

import pytest

from server.errors import Overloaded
from server.scheduling.admission import OpenRequests, Quota


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


def test_a_quota_is_what_a_tenant_may_still_ask() -> None:
    opened = OpenRequests(3, "sequences")
    assert opened.quota("a", 0.0) == Quota(limit=3, remaining=3, reset_s=0)
    for number in range(4):
        opened.begin("b", float(number))
        opened.end("b", float(number))  # one a second
    opened.begin("a", 4.0)
    opened.begin("a", 4.0)
    assert opened.quota("a", 4.0) == Quota(limit=3, remaining=1, reset_s=2)
    opened.begin("a", 4.0, count=5)
    assert opened.quota("a", 4.0) == Quota(limit=3, remaining=0, reset_s=7)
    assert opened.quota("b", 4.0) == Quota(limit=3, remaining=3, reset_s=0)


def test_a_quota_ends_where_all_tenants_together_do() -> None:
    opened = OpenRequests(2, "sequences")
    for tenant in "abcd":
        opened.begin(tenant, 0.0, count=2)
    assert opened.quota("e", 0.0).remaining == 0
