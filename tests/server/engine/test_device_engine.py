"""The device's way through the whole engine, on the CPU, answers as the CPU's way does."""

from collections.abc import Iterator

import pytest
import torch

import tiny
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
from adapters_core.methods import (
    C3A,
    CLoRA,
    DoRA,
    FourierFT,
    FRoD,
    LoCA,
    LoRA,
    SHiRA,
    TinyLoRA,
    VeRA,
    WaveletFT,
)
from device_checks import RunsAgain
from server.adapters.residency import Entry
from server.engine.recordings import Recordings
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server_parts import (
    FOURIERFT,
    LORA,
    PAGE_SIZE,
    QUERY_VALUE,
    Given,
    Served,
    given,
    greedy,
    prompt_of,
    torch_threads,
)

METHODS: tuple[Method, ...] = (
    FourierFT(n=300, seed=3),
    LoRA(r=8, alpha=4.0),
    C3A(block_size=16),
    CLoRA(r=3, num_spaces=2),
    DoRA(r=3),
    FRoD(sparse_rate=0.02),
    LoCA(n=300),
    SHiRA(r=2),
    TinyLoRA(r=5, u=6, tying=0.5),
    VeRA(r=5),
    WaveletFT(n=300, num_levels=2),
)
NEW_TOKENS = 6


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module", params=tiny.SHAPES)
def both(request: pytest.FixtureRequest) -> tuple[Served, Served]:
    return tuple(Served(tiny.model(request.param), on_device=way) for way in (False, True))  # type: ignore[return-value]


def sequences(served: Served, adapters: list[Given | None], merged: int = 0) -> list[TokenSequence]:
    """Return a sequence for each adapter; the first `merged` of them go through merged weights."""
    leases: list[Entry | None] = []
    for i, adapter in enumerate(adapters):
        mode = "merged" if i < merged else "factored"
        leases.append(None if adapter is None else served.entry(adapter, mode))
    return [
        TokenSequence(prompt_of(20 + 13 * i, i), greedy(NEW_TOKENS), lease)
        for i, lease in enumerate(leases)
    ]


def check(both: tuple[Served, Served], adapters: list[Given | None], merged: int = 0) -> None:
    told, logits = [], []
    for served in both:
        many = sequences(served, adapters, merged)
        rows = served.run(many, max_rows=40)
        told.append([one.tokens for one in many])
        logits.append(torch.cat([rows[one] for one in many]))
    assert told[0] == told[1]
    assert (logits[0] - logits[1]).abs().max() < 1e-3


def test_bases_of_every_shape_with_mixed_adapters(both: tuple[Served, Served]) -> None:
    kinds = [(m, ends) for m in (FOURIERFT, LORA) for ends in (QUERY_VALUE, ("",))]
    adapters = [given(both[0].spec, m, i, ends) for i, (m, ends) in enumerate(kinds)]
    check(both, [None, *adapters])
    check(both, [*adapters, None], merged=2)


def test_a_gpus_steps_with_prompts_have_few_numbers_of_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both = (Served(tiny.model()), Served(tiny.model(), on_device=True))
    monkeypatch.setattr(both[1].engine, "_prompt_rows", 64)
    seen: set[int] = set()
    norm = both[1].engine._model.get_submodule("model.norm")
    norm.register_forward_hook(lambda module, given, rows: seen.add(rows.shape[1]))
    adapters = [given(both[0].spec, method, 1) for method in (FOURIERFT, LORA)]
    check(both, [None, *adapters])
    check(both, [*adapters, None], merged=1)
    assert seen == {4, 64}  # of single tokens and of prompts: at most 40 rows in each step


def test_every_method_factored() -> None:
    both = (Served(tiny.model()), Served(tiny.model(), on_device=True))
    assert {method.name for method in METHODS} == set(registered())
    adapters = [
        given(both[0].spec, method, i, ("",), both[0].bases) for i, method in enumerate(METHODS)
    ]
    check(both, [*adapters, None])


def test_a_merged_adapter_alone_goes_over_static_tensors_too() -> None:
    both = (Served(tiny.model()), Served(tiny.model(), on_device=True))
    check(both, [given(both[0].spec, FOURIERFT, 1)], merged=1)
    graphs = both[1].engine._graphs
    assert graphs is not None
    assert list(graphs._entries())


def test_replays_serve_merged_rows_beside_several_banks() -> None:
    """The same adapters come in other orders and numbers, over the same recorded forms."""
    both = (Served(tiny.model()), Served(tiny.model(), on_device=True))
    maker = RunsAgain()
    graphs = both[1].engine._graphs
    assert graphs is not None
    graphs.recordings = Recordings(maker)
    merged = [given(both[0].spec, FOURIERFT, i, QUERY_VALUE) for i in range(2)]
    others = [given(both[0].spec, method, 5) for method in (FOURIERFT, LORA)]
    told = []
    for served in both:
        leases = [served.entry(one, "merged") for one in merged]
        leases += [served.entry(one, "factored") for one in others]
        runs = []
        for order in ((0, 1, 2, 3), (3, 2, 0, 0), (1, 0, 2, 3)):
            sequences = [
                TokenSequence(prompt_of(9, i), greedy(24), leases[number])
                for i, number in enumerate(order)
            ]
            sequences.append(TokenSequence(prompt_of(9, 9), greedy(24)))
            served.run(sequences)
            runs.append([one.tokens for one in sequences])
        told.append(runs)
    assert told[0] == told[1]
    assert maker.replayed > 2 * maker.recorded > 0


def test_steps_choose_tokens_as_the_cpu_does_and_catch_up_without_sampling() -> None:
    """Seeds, biases and log-probabilities through `step`; one sequence is a token behind."""
    answers = []
    for on_device in (False, True):
        served = Served(tiny.model(), on_device=on_device)
        sampling = Sampling(max_tokens=4, temperature=0.9, top_p=0.9, seed=7, num_logprobs=2)
        one, behind = (TokenSequence(prompt_of(9, seed), sampling) for seed in (1, 2))
        scheduler = Scheduler(PagePool(10, PAGE_SIZE), 64, 4)
        told = []
        for sequence in (one, behind):
            scheduler.add(sequence)
        while batch := scheduler.next(0.0):
            sampled = served.engine.step(batch)
            told.append([s.token for s in sampled if s])
            scheduler.advance(batch, [s for s in sampled if s])
        behind.pages, one.pages = [3], [4]
        told.append(
            [
                s.token
                for s in served.engine.step(
                    Batch((Work.of(behind, 3, 4), Work.of(one, 12, 13)), ())
                )
                if s
            ]
        )
        answers.append(told)
    assert answers[0] == answers[1]
    assert [len(step) for step in answers[0]] == [2, 2, 2, 2, 1]


def test_the_host_reads_the_device_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(tiny.model(), on_device=True)
    one = sequences(served, [given(served.spec, FOURIERFT, 1)])[0]
    one.pages = [1, 2]
    served.engine.step(Batch((), (Work.of(one, 0, len(one.prompt)),)))
    one.tokens.append(5)
    reads: list[torch.Size] = []
    tolist = torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> object:
        reads.append(tensor.shape)
        return tolist(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    served.engine.step(Batch((Work.of(one, 20, 21),), ()))
    assert len(reads) == 1
