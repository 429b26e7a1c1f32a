"""The batcher: every request ends once, and nobody waits for somebody else's adapter."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny_encoders as te
from adapters_core.base.spec import weights_of
from adapters_core.contract.method import Rows
from adapters_core.layers.bank import Bank
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.modes import Mode
from server.adapters.payload import Merged
from server.base.resident import ResidentBase
from server.encoding.batcher import Batcher
from server.encoding.build import encoding_of
from server.encoding.encoder import Encoder, Group, Input
from server.encoding.head_switch import plain_heads
from server.encoding.plan import Payload
from server.encoding.request import Limits, PendingRequest
from server.errors import AdapterTooLarge, DeadlineExceeded, Draining, InternalError, Overloaded
from server.telemetry.observer import Observer, StepStats
from server_parts import CPU, Store, eventually

TEXT: Input = tuple(range(10, 20))
LIMITS = Limits("factored", max_batch=4, max_tokens=128, max_open=16, max_pixels=1)


class Watched(Observer):
    """Remembers the steps."""

    def __init__(self) -> None:
        self.steps: list[StepStats] = []

    def on_step(self, stats: StepStats) -> None:
        self.steps.append(stats)


@dataclass
class Parts:
    batcher: Batcher
    loader: Loader
    store: Store
    observer: Watched
    encoder: Encoder

    def hold(self) -> tuple[threading.Event, threading.Event]:
        """Make the next batch wait; return what says that it runs, and what lets it go."""
        running, go, real = threading.Event(), threading.Event(), self.encoder.run

        def held(inputs: Any, group: Group, payloads: list[Payload]) -> list[Tensor]:
            self.encoder.run = real  # type: ignore[method-assign]
            running.set()
            assert go.wait(30)
            return real(inputs, group, payloads)

        self.encoder.run = held  # type: ignore[assignment, method-assign]
        return running, go


@pytest.fixture
def start(tmp_path: Path, few_threads: None) -> Iterator[Callable[..., Parts]]:
    with ExitStack() as stack:

        def run(
            limits: Limits = LIMITS,
            coefficient_bytes: int = 1 << 24,
            host_bytes: int = 0,
            shape: str = "bert",
        ) -> Parts:
            base = te.base(shape)
            assert base.spec.head is not None
            weights, forms = (
                weights_of(base.model, base.spec),
                plain_heads(base.model, base.spec.head),
            )
            injection, observer = inject(base.model), Watched()
            store = Store(tmp_path, base.spec)
            bases = BasisCache(CPU, weights)
            sizes = (coefficient_bytes, 1 << 26, 1 << 24)
            loader = Loader(
                store.open,
                ResidentBase(base.spec, injection, bases),
                Capacities(*sizes, host_bytes),
                observer,
                lambda entry: batcher.wake(),
            )
            encoding = encoding_of(base, injection, forms, loader, observer, limits)
            batcher = encoding.batcher
            batcher.start()
            stack.callback(loader.close)
            stack.callback(batcher.stop, 0.0)
            return Parts(batcher, loader, store, observer, batcher._encoder)

        yield run


def adapter(parts: Parts, digest: str, seed: int = 0, shape: str = "bert") -> str:
    config = te.configs(shape, None, ["classifier"])[seed % 4]
    te.make(te.model(shape), config, parts.store.root / digest, seed)
    return digest


def result(request: PendingRequest) -> list[Tensor]:
    return request.future.result(30)


def test_a_request_of_many_inputs_is_answered_in_order(start: Callable[..., Parts]) -> None:
    parts = start()
    inputs: list[Input] = [tuple(range(n, n + 5 + 7 * (n % 3))) for n in range(9)]
    alone = [result(parts.batcher.submit([given], None))[0] for given in inputs]
    together = result(parts.batcher.submit(inputs, None))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert all(step.num_running <= 4 for step in parts.observer.steps)
    assert parts.batcher.num_open == 0


def test_different_adapters_share_a_batch(start: Callable[..., Parts]) -> None:
    parts = start()
    digests = [adapter(parts, f"d{seed}", seed) for seed in range(3)]
    alone = [result(parts.batcher.submit([TEXT], digest))[0] for digest in digests]
    running, go = parts.hold()
    first = parts.batcher.submit([TEXT], None)
    assert running.wait(30)
    requests = [parts.batcher.submit([TEXT], digest) for digest in digests]
    go.set()
    for request, expected in zip(requests, alone, strict=True):
        assert torch.equal(result(request)[0], expected)
    result(first)
    assert parts.observer.steps[-1].num_adapters == 3
    assert parts.observer.steps[-1].mode == "factored"


def test_others_go_on_while_an_adapter_loads(start: Callable[..., Parts]) -> None:
    parts = start()
    gate = parts.store.hold(adapter(parts, "slow"))
    slow = parts.batcher.submit([TEXT], "slow")
    result(parts.batcher.submit([TEXT], None))
    assert not slow.future.done()
    gate.set()
    assert result(slow)[0].shape == (3,)


def test_an_adapter_that_cannot_be_loaded_fails_its_own_requests(
    start: Callable[..., Parts],
) -> None:
    parts = start()
    lost = parts.batcher.submit([TEXT, TEXT], "lost")
    with pytest.raises(FileNotFoundError):
        result(lost)
    assert result(parts.batcher.submit([TEXT], None))
    eventually(lambda: parts.batcher.num_open == 0)


def test_a_heads_bytes_are_charged_before_it_is_loaded(start: Callable[..., Parts]) -> None:
    parts = start(coefficient_bytes=1 << 12)
    config = te.configs("bert", "SEQ_CLS", None)[0]
    config.target_modules = {"encoder.layer.0.attention.self.query"}
    base = te.model("bert", num_labels=100)  # the coefficients alone would fit
    te.make(base, config, parts.store.root / "wide", 0)
    with pytest.raises(AdapterTooLarge):
        result(parts.batcher.submit([TEXT], "wide"))


@pytest.mark.parametrize("host_bytes", [0, 1 << 20])
def test_an_evicted_adapter_comes_back_with_its_head(
    start: Callable[..., Parts], host_bytes: int
) -> None:
    parts = start(coefficient_bytes=8000, host_bytes=host_bytes)  # room for one
    digests = [adapter(parts, "d0", 0), adapter(parts, "d4", 4)]
    before = [result(parts.batcher.submit([TEXT], digest))[0] for digest in digests]
    assert parts.loader.memory.modes_of("d0") == []
    opened = len(parts.store.opened)
    after = [result(parts.batcher.submit([TEXT], digest))[0] for digest in digests]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (len(parts.store.opened) == opened) == bool(host_bytes)


def test_a_cancelled_request_gives_back_what_it_held(start: Callable[..., Parts]) -> None:
    parts = start()
    digest = adapter(parts, "d")
    result(parts.batcher.submit([TEXT], digest))
    running, go = parts.hold()
    request = parts.batcher.submit([TEXT] * 9, digest)
    assert running.wait(30)
    parts.batcher.cancel(request)
    parts.batcher.cancel(request)
    assert not request.is_over  # its adapter is in use until the batch is through
    go.set()
    with pytest.raises(Draining):
        result(request)
    eventually(lambda: parts.batcher.num_open == 0)
    assert request.lease is not None
    assert request.lease.users == 0


def test_a_future_that_its_receiver_gave_up_harms_nobody(start: Callable[..., Parts]) -> None:
    parts = start()
    running, go = parts.hold()
    request = parts.batcher.submit([TEXT], None)
    assert running.wait(30)
    assert request.future.cancel()
    go.set()
    with pytest.raises(CancelledError):
        result(request)
    assert result(parts.batcher.submit([TEXT], None))


def test_a_full_queue_turns_requests_away(start: Callable[..., Parts]) -> None:
    parts = start()
    running, go = parts.hold()
    open_ = parts.batcher.submit([TEXT] * 16, None)
    assert running.wait(30)
    with pytest.raises(Overloaded, match="16 inputs are open"):
        parts.batcher.submit([TEXT], None)
    go.set()
    assert len(result(open_)) == 16
    assert result(parts.batcher.submit([TEXT], None))


def test_one_tenant_cannot_fill_the_queue_for_others(start: Callable[..., Parts]) -> None:
    parts = start()
    running, go = parts.hold()
    mine = parts.batcher.submit([TEXT] * 16, None, "a")
    assert running.wait(30)
    with pytest.raises(Overloaded):
        parts.batcher.submit([TEXT], None, "a")
    other = parts.batcher.submit([TEXT], None, "b")
    go.set()
    assert result(other)
    assert len(result(mine)) == 16
    assert result(parts.batcher.submit([TEXT], None, "a"))


def test_a_request_whose_time_is_over_ends(start: Callable[..., Parts]) -> None:
    parts = start()
    gate = parts.store.hold(adapter(parts, "slow"))
    late = parts.batcher.submit([TEXT], "slow", timeout_s=0.01)
    with pytest.raises(DeadlineExceeded, match="0 of 1 inputs"):
        result(late)
    eventually(lambda: parts.batcher.num_open == 0)
    gate.set()
    assert result(parts.batcher.submit([TEXT], "slow", timeout_s=60.0))


def test_a_failing_batch_ends_its_requests_and_the_next_one_is_answered(
    start: Callable[..., Parts],
) -> None:
    parts = start()
    real = parts.encoder.run

    def broken(*args: Any) -> list[Tensor]:
        parts.encoder.run = real  # type: ignore[method-assign]
        raise RuntimeError("out of memory")

    parts.encoder.run = broken  # type: ignore[method-assign]
    with pytest.raises(InternalError):
        result(parts.batcher.submit([TEXT], None))
    assert result(parts.batcher.submit([TEXT], None))


def spoil(
    parts: Parts, request: PendingRequest, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make a request's adapter raise: in a linear, or in its head."""
    lease = request.lease
    assert lease is not None
    eventually(lambda: lease.is_ready)
    payload = lease.payload
    if fault == "head":
        tensors = payload.head.tensors
        monkeypatch.setitem(tensors, "classifier.weight", tensors["classifier.weight"][:, 1:])
    elif isinstance(payload, Merged):
        target = next(iter(payload.weights))
        monkeypatch.setitem(payload.weights, target, payload.weights[target][:, 1:])
    else:
        apply = Bank.apply_analysed

        def raising(bank: Bank, target: str, analysed: Any, rows: Rows) -> Tensor:
            if bank is payload.bank and bool((rows.slots == payload.slot).any()):
                raise RuntimeError("a kernel failed")
            return apply(bank, target, analysed, rows)

        monkeypatch.setattr(Bank, "apply_analysed", raising)


@pytest.mark.parametrize("mode", ["factored", "merged"])
@pytest.mark.parametrize("fault", ["adapter", "head", "row"])
@pytest.mark.parametrize("shape", ["bert", "vit"])
def test_what_raises_in_a_batch_ends_its_own_request_alone(
    start: Callable[..., Parts],
    mode: Mode,
    fault: str,
    shape: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = start(Limits(mode, 8, 1024, 16, 1), shape=shape)
    good, bad, wrong = TEXT, TEXT, (*TEXT, 5000)
    if shape == "vit":
        good = bad = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))
        wrong = torch.ones(3, 32, 40)  # no size that this base takes
    digests = [None, adapter(parts, "d0", 0, shape), adapter(parts, "d1", 1, shape)]
    adapter(parts, "bad", 2 if mode == "merged" else 0, shape)
    alone = [result(parts.batcher.submit([good], digest))[0] for digest in digests]
    running, go = parts.hold()
    first = parts.batcher.submit([good], None)
    assert running.wait(30)
    request = parts.batcher.submit([good, wrong if fault == "row" else bad], "bad")
    beside = [parts.batcher.submit([good, good], digest) for digest in digests]
    if fault != "row":
        spoil(parts, request, fault, monkeypatch)
    go.set()
    result(first)
    with pytest.raises(InternalError, match=rf"adapter bad \({mode}\)"):
        result(request)
    for one, expected in zip(beside, alone, strict=True):
        assert all(torch.equal(row, expected) for row in result(one))
    eventually(lambda: parts.batcher.num_open == 0)
    assert parts.batcher.is_alive


def test_an_answer_that_is_not_finite_is_a_failure(start: Callable[..., Parts]) -> None:
    parts = start()
    digest = adapter(parts, "huge")
    config = te.configs("bert", "SEQ_CLS", None)[0]
    made = te.model("bert")
    with torch.no_grad():
        made.classifier.weight.fill_(3e38)
    te.make(made, config, parts.store.root / digest, 0)
    with pytest.raises(InternalError, match="not finite"):
        result(parts.batcher.submit([TEXT], digest))
    assert result(parts.batcher.submit([TEXT], None))


def test_stopping_answers_what_is_open_and_takes_nothing_new(start: Callable[..., Parts]) -> None:
    parts = start()
    running, go = parts.hold()
    request = parts.batcher.submit([TEXT] * 6, None)
    assert running.wait(30)
    stopping = threading.Thread(target=parts.batcher.stop)
    stopping.start()

    def is_draining() -> bool:
        try:
            parts.batcher.submit([], None)
        except Draining:
            return True
        return False

    eventually(is_draining)
    go.set()
    stopping.join(30)
    assert len(result(request)) == 6
    assert not parts.batcher.is_alive


def test_what_cannot_end_in_time_is_failed_by_the_stop(start: Callable[..., Parts]) -> None:
    parts = start()
    gate = parts.store.hold(adapter(parts, "slow"))
    request = parts.batcher.submit([TEXT], "slow")
    parts.batcher.stop(timeout_s=0.0)
    with pytest.raises(Draining):
        result(request)
    assert parts.batcher.num_open == 0
    gate.set()


def test_the_background_is_computed_while_nothing_else_is_ready(
    start: Callable[..., Parts],
) -> None:
    parts = start()
    running, go = parts.hold()
    first = parts.batcher.submit([TEXT], None)
    assert running.wait(30)
    order: list[str] = []
    low = parts.batcher.submit([TEXT] * 40, None, is_background=True)
    live = [parts.batcher.submit([TEXT] * 5, None) for _ in range(3)]
    low.future.add_done_callback(lambda _: order.append("background"))
    for one in live:
        one.future.add_done_callback(lambda _: order.append("live"))
    assert parts.batcher.num_open == 56, "the background is none of the tenant's sixteen"
    go.set()
    expected = result(first)[0]
    assert all(torch.equal(one, expected) for one in result(low))
    assert order == ["live"] * 3 + ["background"]
    assert parts.batcher.num_open == 0
