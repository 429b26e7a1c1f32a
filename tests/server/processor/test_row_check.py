"""Whether answers depend on their neighbours is measured at start, said, and refused if asked."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from adapters_core.contract.rows import row_multiple
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import usual_methods
from adapters_core.layers.invariance import RowProduct
from live import Live, running, settings_of
from server.base.loading import make_base
from server.engine.engine import Engine
from server.processor import row_check
from server.processor.row_check import (
    NeedsSearch,
    NotInvariant,
    RowReport,
    check_products,
    moving_step,
    require_own_rows,
)
from server.scheduling.sequence import TokenSequence
from server.scheduling.step import Batch
from server_parts import CPU, Served, greedy, prompt_of, torch_threads
from waiting import until

MOVED = RowReport("q_proj (96, 96)", 4, may_improve=True)


def test_a_server_says_that_its_rows_hold(live: Live) -> None:
    assert live.service.rows.holds
    assert live.service.rows.multiple == row_multiple()
    assert live.metric("overtone_batch_invariant") == 1


LENGTHS = (3, 17, 33, 70)
PROMPTS = (3, 17, 33, 70, 95, 130, 5, 40)


@pytest.mark.parametrize("shape", ["llama", "gpt2", "qwen3"])
def test_steps_of_this_machine_hold(shape: str) -> None:
    served = Served(tiny.model(shape))
    assert moving_step(served.engine, 60, LENGTHS) is None
    assert moving_step(served.engine, 60, (3,)) is None, "a base of few positions"


@pytest.mark.parametrize("shape", [*tiny.SHAPES, *tiny.MASKED_SHAPES, *tiny.OWN_SHAPES])
def test_what_is_said_of_a_bases_steps_is_so(shape: str) -> None:
    """A mixture's experts, for one, are given other rows beside other texts."""
    with torch_threads(1):
        served = Served(tiny.model(shape))
        if moving_step(served.engine, tiny.VOCABULARY, LENGTHS) is not None:
            assert shape in ("gpt_oss", "llama4", "qwen2_moe"), "its rows are its own"
            return
        alone = [served.run([one])[one] for one in _texts()]
        texts = _texts()
        together = served.run(texts, 37)
    for expected, text in zip(alone, texts, strict=True):
        assert torch.equal(together[text], expected), len(text.prompt)


def _texts() -> list[TokenSequence]:
    return [TokenSequence(prompt_of(n, n), greedy(4)) for n in PROMPTS]


def test_a_large_base_is_checked_with_less() -> None:
    model = tiny.model("llama")
    base = make_base(model, tiny.tokenizer(), "tiny")
    assert row_check._lengths(base) == list(LENGTHS)
    assert row_check._lengths(replace(base, max_length=20)) == [3, 17]
    large = replace(base, model=torch.nn.Linear(1 << 20, 1 << 14, device="meta"))
    assert row_check._lengths(large) == [3, 17]


def test_a_step_whose_rows_move_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    served, own = Served(tiny.model("llama")), Engine.logits

    def moving(engine: Engine, batch: Batch) -> Tensor:
        return own(engine, batch) * (1 + 1e-6 * (len(batch.works) > 1))

    monkeypatch.setattr(Engine, "logits", moving)
    assert moving_step(served.engine, 60, LENGTHS) == "a sequence of 3 tokens"


def test_the_least_multiple_that_holds_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("llama")
    monkeypatch.setattr(row_check, "products_of", lambda model: [_moving_below(8)])
    before = row_multiple()
    try:
        report = check_products(model, [], [], BasisCache(CPU))
        assert report == RowReport(None, 8, may_improve=True)
        assert row_multiple() == 8
    finally:
        row_check.set_row_multiple(before)


def test_where_no_multiple_holds_the_first_that_moved_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(row_check, "products_of", lambda model: [_moving_below(1000)])
    report = check_products(tiny.model("llama"), usual_methods(), [], BasisCache(CPU))
    assert report == RowReport("planted", row_multiple(), may_improve=True)


def _moving_below(multiple: int) -> RowProduct:
    counts = tuple(row_multiple() * n for n in (1, 2, 5))

    def compute(rows: Tensor, first: int) -> Tensor:
        return rows * (1 + 1e-6 * (row_multiple() < multiple and len(rows) < counts[-1]))

    return RowProduct("planted", 8, 1.0, counts, compute)


def test_an_encoders_inputs_that_move_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moving:
        def run(self, inputs: list[Any], group: object, payloads: list[None]) -> list[Tensor]:
            return [torch.ones(2) * (1 + 1e-6 * (len(inputs) > 1)) for _ in inputs]

    texts: list[Any] = [(1, 2, 3), (4, 5, 6)]
    found = row_check.moving_input(Moving(), texts, 512)  # type: ignore[arg-type]
    assert found == "input 0 of a batch"


def test_moving_rows_are_refused_searched_or_said(caplog: pytest.LogCaptureFixture) -> None:
    require_own_rows(RowReport(None, 4), deterministic=True, can_search=True)
    require_own_rows(row_check.unchecked(torch.device("cuda")), True, True)
    with pytest.raises(NeedsSearch):
        require_own_rows(MOVED, deterministic=True, can_search=True)
    with pytest.raises(NeedsSearch):
        require_own_rows(
            RowReport(None, 16, may_improve=True), deterministic=False, can_search=True
        )
    with pytest.raises(NotInvariant):  # steps move where products hold: no setting helps
        require_own_rows(RowReport("a sequence", 4), deterministic=True, can_search=True)
    with pytest.raises(NotInvariant, match=r"q_proj \(96, 96\).*--deterministic"):
        require_own_rows(MOVED, deterministic=True, can_search=False)
    assert not caplog.text
    require_own_rows(MOVED, deterministic=False, can_search=False)
    assert "do not repeat bit by bit" in caplog.text


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_server_whose_rows_move_says_so_or_does_not_serve(
    base_folder: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    monkeypatch.setattr(row_check, "products_of", lambda model: [_moving_below(1000)])
    settings = settings_of(base_folder("llama"), tmp_path, deterministic=deterministic)
    with running(settings) as live:
        if deterministic:
            until(lambda: "cannot serve" in live.http.get("/health/ready").text)
        else:
            until(lambda: live.http.get("/health/ready").status_code == 200)
            assert live.metric("overtone_batch_invariant") == 0
            assert not live.service.rows.holds
