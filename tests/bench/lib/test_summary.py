import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.lib.load import Planned
from bench.lib.load_runner import Model, Record, Seen
from bench.lib.picture import draw
from bench.lib.summary import Promise, gaps, jain, spread, summary, ttft

MODELS = [Model("a", "sha256:a"), Model("b", "sha256:b")]
PROMISE = Promise(ttft_s=1.0, itl_s=0.5)


def seen(
    number: int, adapter: int, due: float, tokens: list[float], code: str | None = None
) -> Seen:
    plan = Planned(number, due, adapter, 8, len(tokens))
    return Seen(plan, due, due, tuple(tokens), tokens[-1] if tokens else due, code)


RECORD = Record(
    seen=[
        seen(0, 0, 0.0, [0.5, 1.0, 1.5]),
        seen(1, 0, 1.0, [2.5, 2.6, 2.7]),  # first token late
        seen(2, 1, 2.0, [2.1, 3.1, 4.1]),  # slow in between
        seen(3, 1, 3.0, [], "overloaded"),
        seen(4, 1, 3.5, [3.6, 3.7, 6.0]),  # ends after the window
        seen(5, 1, 3.9, [4.0, 4.1, 4.2], "wrong_adapter"),
    ],
    dropped=2,
    window_s=5.0,
)


def test_counts_add_up() -> None:
    found = summary(RECORD, MODELS, 1.0, PROMISE)
    requests = found["requests"]
    assert requests["planned"] == requests["sent"] + requests["dropped"] == 8
    assert requests["sent"] == requests["completed"] + requests["failed"] == 6
    assert requests["errors"] == {"overloaded": 1, "wrong_adapter": 1}
    assert found["wrong_adapter"] == 1


def test_throughput_counts_what_came_within_the_window() -> None:
    found = summary(RECORD, MODELS, 1.0, PROMISE)["throughput"]
    assert found["output_tokens_s"] == pytest.approx(14 / 5)
    assert found["requests_s"] == pytest.approx(3 / 5)
    assert found["prompt_tokens_s"] == pytest.approx(24 / 5)


def test_goodput_is_a_share_of_all_that_was_planned() -> None:
    found = summary(RECORD, MODELS, 1.0, PROMISE)["goodput"]
    assert found["share"] == pytest.approx(1 / 8)
    assert found["requests_s"] == pytest.approx(1 / 5)


def test_a_request_that_was_sent_late_has_waited_all_that_time() -> None:
    late = Seen(Planned(0, 1.0, 0, 8, 2), 1.0, 4.0, (5.0, 5.5), 5.5, None)
    assert ttft(late) == 4.0
    found = summary(Record([late], 0, 6.0), MODELS, 1.0, PROMISE)
    assert found["late_s"]["max"] == 3.0
    assert found["latency_s"]["max"] == 4.5


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_ordered_and_numpys(values: list[float]) -> None:
    found = spread(values)
    assert found is not None
    assert found["p50"] == np.percentile(values, 50)
    assert found["p50"] <= found["p90"] <= found["p95"] <= found["p99"] <= found["max"]
    assert found["max"] == max(values)


def test_nothing_has_no_percentiles() -> None:
    assert spread([]) is None
    empty = summary(Record(), MODELS, 0.0, PROMISE)
    assert empty["ttft_s"] is None
    assert empty["fairness"]["jain_latency"] is None


@given(st.lists(st.floats(0.001, 1e3), min_size=1, max_size=30))
def test_jains_index_lies_between_one_for_all_and_all_alike(values: list[float]) -> None:
    index = jain(values)
    assert index is not None
    assert 1 / len(values) - 1e-9 <= index <= 1 + 1e-9
    assert jain([values[0]] * 7) == pytest.approx(1)
    assert jain([values[0], 0.0, 0.0]) == pytest.approx(1 / 3)


def test_fairness_looks_at_adapters_with_several_answers() -> None:
    same = [seen(i, i % 2, float(i), [i + 0.5, i + 1.0]) for i in range(12)]
    even = summary(Record(same, 0, 12.0), MODELS, 0.0, PROMISE)["fairness"]
    assert even["jain_latency"] == pytest.approx(1)
    assert even["jain_tokens"] == pytest.approx(1)
    slow = [seen(i, i % 2, float(i), [i + 0.5, i + 1.0 + 9 * (i % 2)]) for i in range(12)]
    found = summary(Record(slow, 0, 12.0), MODELS, 1.0, PROMISE)["fairness"]
    # 0.5 and 5 seconds a token
    assert found["jain_latency"] == pytest.approx(5.5**2 / (2 * (0.5**2 + 5**2)))
    assert found["jain_tokens"] is None
    assert [row["adapter"] for row in found["busiest"]] == ["a", "b"]


def test_an_adapter_with_two_answers_says_nothing_about_fairness() -> None:
    often = [seen(i, 0, float(i), [i + 0.5]) for i in range(3)]
    seldom = [seen(i, 1, float(i), [i + 50.0]) for i in range(2)]
    found = summary(Record(often + seldom, 0, 60.0), MODELS, 1.0, PROMISE)["fairness"]
    assert found["jain_latency"] == pytest.approx(1)
    assert found["adapters_answered"] == 2


def test_gaps_lie_between_tokens() -> None:
    assert gaps(seen(0, 0, 0.0, [1.0, 1.5, 3.0])) == [0.5, 1.5]
    assert gaps(seen(0, 0, 0.0, [1.0])) == []


@pytest.mark.parametrize("record", [RECORD, Record()])
def test_every_record_can_be_drawn(record: Record, tmp_path) -> None:  # type: ignore[no-untyped-def]
    draw(record, "a run", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
