"""A device without memory: what is idle is evicted, the step is run again, and then 503.

There is no GPU here: torch's exception is raised where a device's allocator raises it.
"""

from collections.abc import Iterator

import pytest
import torch

import spectra
from adapters_core.layers.bank import Bank
from live import Live
from server.engine.engine import Engine
from server.scheduling.sequence import Sampled
from server.scheduling.step import Batch

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
ASK = {"model": "asked", "prompt": "Once", "max_tokens": 2}


@pytest.fixture
def idle(live: Live) -> Iterator[str]:
    """Return the digest of an adapter that is in memory and not in use, beside `asked`."""
    for number, name in enumerate(("idle", "asked")):
        assert live.upload(name, spectra.files(700 + number)).status_code in (200, 201)
        assert live.tokens(name)
    digest = live.http.get("/v1/adapters/idle").json()["digest"]
    assert live.service.loader.memory.modes_of(digest)
    yield digest
    for name in ("idle", "asked"):
        assert live.http.delete(f"/v1/adapters/{name}").status_code == 200


def test_a_step_without_memory_evicts_what_is_idle_and_is_run_again(
    live: Live, idle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, step, failed = live.tokens("asked"), Engine.step, list[int]()

    def first_fails(engine: Engine, batch: Batch) -> list[Sampled | None]:
        failed.append(batch.num_rows)
        if len(failed) == 1:
            raise FULL
        return step(engine, batch)

    monkeypatch.setattr(Engine, "step", first_fails)
    assert live.tokens("asked") == tokens
    assert failed[0] == failed[1]
    assert live.service.loader.memory.modes_of(idle) == []
    assert live.tokens("idle")


def test_a_request_without_memory_even_so_is_503_and_the_next_one_is_answered(
    live: Live, idle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(engine: Engine, batch: Batch) -> list[Sampled | None]:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", fails)
        answer = live.http.post("/v1/completions", json=ASK)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "out_of_memory")
    assert int(answer.headers["retry-after"]) > 0
    assert "GiB" not in error["message"]
    assert live.tokens("asked")
    assert live.http.get("/health/ready").status_code == 200


def test_an_adapter_for_which_there_is_no_memory_is_503_and_loads_later(
    live: Live, idle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bank: Bank, row: torch.Tensor) -> int:
        raise FULL

    live.service.loader.memory.make_room()
    with monkeypatch.context() as patch:
        patch.setattr(Bank, "add", fails)
        answer = live.http.post("/v1/completions", json=ASK)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "out_of_memory")
    assert live.tokens("asked")
