"""What makes a step fail ends alone: an adapter, a row, a choice of token, too little memory."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import torch

import tiny
from adapters_core.base.spec import spec_of
from adapters_core.contract.method import Rows
from adapters_core.layers.bank import Bank
from adapters_core.layers.inject import inject
from running import NUM_PAGES, Heard, Running
from server.adapters.faults import errors_to_report, run_apart
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.engine.engine import Engine
from server.errors import DeadlineExceeded, InternalError
from server.generation.runtime import Generation, SequenceRequest, TokenEvent
from server.scheduling.sequence import Sampled, Sampling
from server.scheduling.step import Batch
from server_parts import FOURIERFT, LORA, Store, eventually, prompt_of, torch_threads

#: A table of positions has an end, unlike rotations.
POSITIONS = 64
SAMPLING = Sampling(
    6, seed=5, num_logprobs=2, top_k=99, repetition_penalty=1.3, frequency_penalty=0.5
)
#: Prompts and adapters of those beside a fault: one is computed in pieces.
NEIGHBOURS: tuple[tuple[int, str | None], ...] = (
    (9, None),
    (45, "good0"),
    (17, "good1"),
    (5, None),
)


# run_apart


def bad_ones(bad: set[int], calls: list[Sequence[int]]) -> Callable[[Sequence[int]], list[int]]:
    def run(items: Sequence[int]) -> list[int]:
        calls.append(tuple(items))
        for item in items:
            if item in bad:
                raise ValueError(f"{item} is bad")
        return [item * 10 for item in items]

    return run


@pytest.mark.parametrize("seed", range(20))
def test_every_item_ends_once_and_only_the_bad_ones_fail(seed: int) -> None:
    random = Random(seed)
    count = random.randint(1, 40)
    bad = {item for item in range(count) if random.random() < random.choice([0.05, 0.5, 1.0])}
    calls: list[Sequence[int]] = []
    outcome = run_apart(range(count), bad_ones(bad, calls))
    assert outcome.results == {item: 10 * item for item in range(count) if item not in bad}
    assert {item: str(error) for item, error in outcome.faults.items()} == {
        item: f"{item} is bad" for item in bad
    }
    assert len(calls) <= 2 * count - 1


def test_one_bad_item_of_many_is_found_in_a_few_halvings() -> None:
    calls: list[Sequence[int]] = []
    run_apart(range(64), bad_ones({37}, calls))
    assert len(calls) == 1 + 2 * 6


@pytest.mark.parametrize("most", [1, 3, 8, 20])
def test_room_is_made_once_and_the_same_items_are_run_again_before_they_are_halved(
    most: int,
) -> None:
    room, calls = [most], list[int]()

    def run(items: Sequence[int]) -> list[int]:
        calls.append(len(items))
        if len(items) > room[0]:
            raise torch.OutOfMemoryError("full")
        return list(items)

    def make_room() -> None:
        room[0] += 8

    outcome = run_apart(range(16), run, make_room)
    assert sorted(outcome.results) == list(range(16))
    assert calls[:2] == ([16, 16] if most < 16 else [16])
    assert room[0] == (most + 8 if most < 16 else most)
    assert len(calls) == {1: 4, 3: 4, 8: 2, 20: 1}[most]


def test_what_raised_holds_no_memory_of_the_failed_run() -> None:
    held: list[Any] = []

    def run(items: Sequence[int]) -> list[int]:
        large = torch.ones(1000)
        held.append(torch.UntypedStorage.data_ptr(large.untyped_storage()))
        raise RuntimeError("no room")

    (error,) = run_apart([1], run).faults.values()
    frame = error.__traceback__
    while frame is not None:
        assert "large" not in frame.tb_frame.f_locals
        frame = frame.tb_next


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("a secret path"), "failed on this request with adapter sha256:1 (merged)"),
        (torch.OutOfMemoryError("2 GiB"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), "not enough memory"),
        (DeadlineExceeded("as it is"), "as it is"),
    ],
)
def test_what_is_told_names_the_adapter_and_nothing_of_the_inside(
    error: Exception, said: str
) -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise error
        return list(items)

    leases = {1: Entry(("sha256:1", "merged")), 2: None}
    told = errors_to_report(run_apart([1, 2], run), leases.get)
    assert list(told) == [1]
    assert said in str(told[1])
    assert "secret" not in str(told[1])


# The loop


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module", params=[False, True], ids=["cpu", "device"])
def engine(request: pytest.FixtureRequest) -> Engine:
    injection = inject(tiny.model("gpt2", n_positions=POSITIONS, n_layer=1))
    return Engine(injection, NUM_PAGES, on_device=request.param)


@pytest.fixture
def run(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(**options: Any) -> Running:
        store = Store(tmp_path_factory.mktemp("blobs"), SPEC)
        for number, digest in enumerate(("good0", "good1", "bad")):
            store.write(digest, (FOURIERFT, LORA)[number % 2], number)
        made.append(Running(engine._injection, engine, store, **options))
        made[-1].runtime.start()
        return made[-1]

    yield build
    for one in made:
        one.engine.may_step.set()
        one.runtime.stop(timeout_s=0)
        one.loader.close()


SPEC = spec_of(tiny.model("gpt2", n_positions=POSITIONS, n_layer=1), "tiny")


def ask(
    r: Running, prompt: tuple[int, ...], digest: str | None, **changes: Any
) -> tuple[Generation, Heard]:
    heard = Heard()
    sampling = replace(SAMPLING, **changes)
    return r.runtime.submit(SequenceRequest(prompt, sampling, digest), heard), heard


def neighbours(r: Running) -> list[Heard]:
    return [ask(r, prompt_of(n, n), digest)[1] for n, digest in NEIGHBOURS]


def answers(r: Running, heards: list[Heard]) -> list[list[Sampled]]:
    for heard in heards:
        heard.tokens()
    return [[e.sampled for e in h.events if isinstance(e, TokenEvent)] for h in heards]


def check_same(r: Running, got: list[list[Sampled]], alone: list[list[Sampled]]) -> None:
    if not r.engine.engine._on_device:
        assert got == alone
        return
    for one, other in zip(got, alone, strict=True):  # a device keeps tokens, not every bit
        assert [s.token for s in one] == [s.token for s in other]
        assert [s.logprob for s in one] == pytest.approx([s.logprob for s in other], abs=1e-4)


def spoil(generation: Generation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the adapter of a generation raise wherever it is applied."""
    lease = generation.sequence.lease
    assert isinstance(lease, Entry)
    eventually(lambda: lease.is_ready)
    payload = lease.payload
    if isinstance(payload, Merged):
        target = next(iter(payload.weights))
        monkeypatch.setitem(payload.weights, target, payload.weights[target][:, :-1])
        return
    assert isinstance(payload, Factored)
    apply, slot = Bank.apply_analysed, payload.slot

    def raising(bank: Bank, target: str, analysed: Any, rows: Rows) -> torch.Tensor:
        if bank is payload.bank and bool((rows.slots == slot).any()):
            raise RuntimeError("a kernel failed")
        return apply(bank, target, analysed, rows)

    monkeypatch.setattr(Bank, "apply_analysed", raising)


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_an_adapter_that_raises_ends_alone(
    run: Callable[..., Running], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = run(mode=mode)
    alone = [answers(r, [heard])[0] for heard in neighbours(r)]
    r.hold()
    beside = neighbours(r)
    bad = [ask(r, prompt_of(n, n), "bad") for n in (7, 40)]
    spoil(bad[0][0], monkeypatch)
    r.engine.may_step.set()
    check_same(r, answers(r, beside), alone)
    for _, heard in bad:
        error = heard.error()
        assert isinstance(error, InternalError)
        assert f"with adapter bad ({mode})" in str(error)
        assert heard.num_last == 1
    eventually(lambda: r.runtime.num_open == 0)
    r.check_all_given_back()
    again = [answers(r, [heard])[0] for heard in neighbours(r)]
    check_same(r, again, alone)


@pytest.mark.parametrize("mode", ["factored", "merged"])
@pytest.mark.parametrize("fault", ["token", "position", "sampling", "later position"])
def test_a_row_that_raises_ends_alone(run: Callable[..., Running], mode: str, fault: str) -> None:
    r = run(mode=mode)
    alone = [answers(r, [heard])[0] for heard in neighbours(r)]
    r.hold()
    prompt, changes = prompt_of(8, 8), {}
    if fault == "token":
        prompt = (*prompt[:5], 5000, *prompt[5:])
    elif fault == "position":
        prompt = prompt_of(POSITIONS + 3, 1)
    elif fault == "sampling":
        changes = {"logit_bias": {5000: 1.0}}
    else:
        prompt, changes = prompt_of(POSITIONS - 2, 1), {"max_tokens": 9}
    first, (_, bad), second = neighbours(r), ask(r, prompt, "good0", **changes), neighbours(r)
    r.engine.may_step.set()
    check_same(r, answers(r, first), alone)
    check_same(r, answers(r, second), alone)
    assert isinstance(bad.error(), InternalError)
    assert len(bad.events) == (3 if fault == "later position" else 0) + 1
    eventually(lambda: r.runtime.num_open == 0)
    r.check_all_given_back()


def test_a_step_for_which_there_is_no_room_is_run_in_parts(run: Callable[..., Running]) -> None:
    r = run()
    alone = [answers(r, [heard])[0] for heard in neighbours(r)]
    step, most = r.engine.engine.step, 12

    def limited(batch: Batch) -> list[Sampled | None]:
        if batch.num_rows > most:
            raise torch.OutOfMemoryError("out of memory")
        return step(batch)

    r.hold()
    beside = neighbours(r)
    r.engine.engine = _Engine(limited, r.engine.engine)  # type: ignore[assignment]
    r.engine.may_step.set()
    failed = [i for i, heard in enumerate(beside) if _failed(heard)]
    assert failed == [1, 2], "13 rows, behind a page that is kept, and 17"
    assert all("memory" in str(beside[i].error()) for i in failed)
    left = [i for i in range(len(beside)) if i not in failed]
    got = answers(r, [beside[i] for i in left])
    check_same(r, got, [alone[i] for i in left])


class _Engine:
    """An engine with another step."""

    def __init__(self, step: Callable[[Batch], list[Sampled | None]], engine: Engine) -> None:
        self.step = step
        self._on_device = engine._on_device


def _failed(heard: Heard) -> bool:
    assert heard.over.wait(30)
    return not isinstance(heard.events[-1], TokenEvent)


def test_a_base_that_fails_ends_everything_with_one_clear_error(
    run: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    r = run()
    r.hold()
    heards = [ask(r, prompt_of(5, 5), digest)[1] for digest in (None, "good0", "good1", None)]
    eventually(lambda: all(r.loader.memory.modes_of(digest) for digest in ("good0", "good1")))
    calls: list[int] = []

    def fails(batch: Batch) -> bool:
        calls.append(batch.num_rows)
        return True

    with caplog.at_level(logging.ERROR):
        r.engine.fails = fails
        r.engine.may_step.set()
        told = {str(heard.error()) for heard in heards}
    assert len(told) == 1
    assert "the base or this machine is at fault" in told.pop()
    eventually(lambda: r.runtime.num_open == 0)
    assert len(calls) == 1 + 2 * len(heards) - 1, "tried again and again"
    assert len([one for one in caplog.records if one.exc_info]) == 2
    r.engine.fails = lambda batch: False
    assert len(answers(r, neighbours(r))) == len(NEIGHBOURS)
    eventually(lambda: r.runtime.num_open == 0)
    r.check_all_given_back()
