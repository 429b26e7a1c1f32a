"""A flooding tenant does not make another wait: the bench's own measurement, against its bar."""

import pytest

from bench.programs.flood import Traffic, flood

#: At most this much longer, at the 99th percentile, than beside a tenant who asks as often.
BAR = 1.5


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_fifty_times_the_load_of_one_tenant_costs_another_half_as_much_again_at_most() -> None:
    seen = flood(512, 4, Traffic(64, 4, share=0.2, requests=60, rounds=3))
    assert seen["flooder"].get("answered", 0) > 0
    assert min(seen["answers"].values()) >= 180
    assert seen["flood_to_normal_p99"] <= BAR, seen
