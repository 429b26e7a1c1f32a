"""The shipped Prometheus configuration reads a server that asks for a key."""

from collections.abc import Callable
from typing import Any

import pytest

from live import Live
from waiting import until

from .conftest import METRICS_KEY


@pytest.mark.prometheus
def test_a_server_with_keys_is_scraped_with_the_key_of_its_own(
    serve: Callable[..., Live], scraped: Callable[[str], Any]
) -> None:
    server = serve(api_keys=(f"prometheus={METRICS_KEY}", "alice=b2"), calibration_s=0)
    assert server.http.get("/metrics").status_code == 401
    prometheus = scraped(server.url)
    until(lambda: prometheus.query("overtone_canary_ok") == [1.0])  # of the first canary's end
