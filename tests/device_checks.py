"""What must be true on a GPU, as functions of the device: run on the CPU too, on the same way.

tests/gpu runs them where there is a GPU, tests/server/engine/test_device_checks.py everywhere.
"""

import gc
from collections.abc import Callable

import torch
from torch import Tensor, nn

import tiny
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import run_canary, usual_methods
from server.adapters.residency import Entry
from server.engine.attention_device import DeviceCache
from server.engine.cuda_graphs import DecodeGraphs
from server.engine.recordings import CudaMaker, Maker, Recordings
from server.engine.sampler_device import sample_on_device
from server.engine.scoring import Scoring
from server.engine.step_tensors import pack
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampled, Sampling, TokenSequence
from server.scheduling.step import Batch, Work
from server_parts import (
    CPU,
    FOURIERFT,
    LORA,
    PAGE_SIZE,
    QUERY_VALUE,
    Served,
    given,
    greedy,
    prompt_of,
)

NEW_TOKENS = 6
#: Of the five sequences.
PROMPT_LENGTHS = (20, 33, 46, 59, 72)
#: Two FourierFT and two LoRA adapters.
ADAPTERS = tuple((method, ends) for method in (FOURIERFT, LORA) for ends in (QUERY_VALUE, ("",)))


def base_of(shape: str = "llama") -> nn.Module:
    """Return a tiny base; another one where each row costs much."""
    return tiny.model(shape)


def served_on(
    device: torch.device,
    shape: str = "llama",
    dtype: torch.dtype = torch.float32,
    deterministic: bool = False,
) -> Served:
    """Return a tiny base on the device, on the device's way."""
    model = base_of(shape).to(device, dtype)
    return Served(model, on_device=True, deterministic=deterministic)


def leases_of(served: Served, merged: int = 0) -> list[Entry | None]:
    """Return leases of the base and of the adapters."""
    adapters = [given(served.spec, m, i, ends) for i, (m, ends) in enumerate(ADAPTERS)]
    modes = ["merged" if i < merged else "factored" for i in range(len(adapters))]
    pairs = zip(adapters, modes, strict=True)
    return [None, *(served.entry(a, "merged" if m == "merged" else "factored") for a, m in pairs)]


def sequences_of(leases: list[Entry | None]) -> list[TokenSequence]:
    return [
        TokenSequence(prompt_of(PROMPT_LENGTHS[i % 5], i), greedy(NEW_TOKENS), lease)
        for i, lease in enumerate(leases)
    ]


def decode_batch(served: Served, leases: list[Entry | None]) -> Batch:
    """Return a step of single tokens of sequences whose prompts are in the cache."""
    pool, works = PagePool(served.num_pages, PAGE_SIZE), []
    for sequence in sequences_of(leases):
        sequence.pages = pool.allocate(pool.pages_for(sequence.max_length)) or []
        length = len(sequence.prompt)
        served.engine.logits(Batch((), (Work.of(sequence, 0, length),)))
        sequence.tokens.append(7)
        works.append(Work.of(sequence, length, length + 1))
    return Batch(tuple(works), ())


class RunsAgain:
    """Stands for CUDA's recordings on a CPU: replays by running again, over the same tensors."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.recorded += 1
        run()  # as CUDA's do, before they record
        run()

        def replay() -> Tensor:
            self.replayed += 1
            return run()

        return replay

    def retire(self) -> None:
        """Nothing is held here."""


def graphs_of(served: Served) -> DecodeGraphs:
    graphs = served.engine._graphs
    assert graphs is not None
    return graphs


def check_same_answers_as_the_cpu(device: torch.device, shape: str, merged: int) -> None:
    """float32 on both sides: the same tokens, and logits within 2e-3."""
    told: list[list[list[int]]] = []
    logits: list[Tensor] = []
    for served in (Served(base_of(shape)), served_on(device, shape)):
        sequences = sequences_of(leases_of(served, merged))
        rows = served.run(sequences, max_rows=40)
        told.append([one.tokens for one in sequences])
        logits.append(torch.cat([rows[one].cpu() for one in sequences]))
    assert told[0] == told[1]
    assert (logits[0] - logits[1]).abs().max() < 2e-3


def check_bfloat16_stays_near(device: torch.device) -> None:
    """The next token's distribution moves by less than a hundredth of a nat on average."""
    found = []
    for served in (Served(base_of()), served_on(device, dtype=torch.bfloat16)):
        rows = served.engine.logits(decode_batch(served, leases_of(served))).float().cpu()
        found.append(torch.log_softmax(rows.double(), dim=1))
    divergence = (found[1].exp() * (found[1] - found[0])).sum(dim=1)
    assert 0 <= float(divergence.mean()) < 1e-2


def check_replays_equal_runs(device: torch.device) -> None:
    """The first run is computed, the second recorded, others replayed; a bank grows between."""
    served = served_on(device)
    leases = leases_of(served)
    batch = decode_batch(served, leases)
    runs = [served.engine.logits(batch).clone() for _ in range(4)]
    for run in runs[1:]:
        assert (run - runs[0]).abs().max() <= 1e-5 * runs[0].abs().max()
    if device.type == "cuda":
        assert graphs_of(served).num_recordings
    more = [
        served.entry(given(served.spec, FOURIERFT, 50 + i, QUERY_VALUE), "factored")
        for i in range(4)
    ]
    for _ in range(3):
        assert (served.engine.logits(batch) - runs[0]).abs().max() <= 1e-5 * runs[0].abs().max()
    other = decode_batch(served, [*more, None])
    assert not torch.equal(served.engine.logits(other), runs[0])


def check_steps_recorded_at_start(device: torch.device) -> None:
    """The first request replays what was recorded before it, and gets the CPU's answer."""
    told = []
    for served in (Served(base_of()), served_on(device)):
        graphs = served.engine._graphs
        if graphs is not None and device.type == "cpu":
            graphs.recordings = Recordings(RunsAgain())
        served.engine.prepare(8)
        sequences = sequences_of([None] * 5)
        served.run(sequences)
        told.append([one.tokens for one in sequences])
        if graphs is not None:
            assert graphs.num_recordings == 8  # 4 and 8 rows, by four numbers of pages
    assert told[0] == told[1]


class FailsLater:
    """Asks the device for a number within a recording, once it is told to."""

    def __init__(self, make: Maker) -> None:
        self._make = make
        self.fails = False

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        outs: list[Tensor] = []

        def asking() -> Tensor:
            outs.append(run())
            if len(outs) > 1:  # the first run is not recorded
                outs[-1].sum().item()
                raise RuntimeError("a CPU answers; it records nothing")
            return outs[-1]

        return self._make(asking if self.fails else run)

    def retire(self) -> None:
        self._make.retire()


def check_a_failed_recording_ends_recording(device: torch.device) -> None:
    """Steps run on as before, unrecorded, and on the stream that they ran on."""
    served = served_on(device)
    graphs = graphs_of(served)
    maker = FailsLater(CudaMaker(device) if device.type == "cuda" else RunsAgain())
    graphs.recordings = Recordings(maker)
    batch = decode_batch(served, leases_of(served))
    runs = [served.engine.logits(batch).clone() for _ in range(3)]
    assert graphs.num_recordings == 1
    maker.fails = True
    longer = Batch(batch.decode * 2, ())
    for _ in range(3):
        served.engine.logits(longer)
    assert graphs.recordings.failure
    assert graphs.num_recordings == 0
    for _ in range(3):
        assert (served.engine.logits(batch) - runs[0]).abs().max() <= 1e-5 * runs[0].abs().max()


def check_new_tokens_reach_a_replay(device: torch.device) -> None:
    """A recorded step reads other tokens, positions and slots than those it was recorded with."""
    told = []
    for served in (Served(base_of()), served_on(device)):
        sequences = sequences_of([None, *leases_of(served)[1:], None])
        for sequence in sequences:
            sequence.sampling = greedy(5 * NEW_TOKENS)  # type: ignore[misc]
        served.run(sequences)
        told.append([one.tokens for one in sequences])
    assert told[0] == told[1]


def check_every_method(device: torch.device, methods: tuple[Method, ...]) -> None:
    """Factored, on all layers, in one batch: the device's logits are the CPU's within 2e-3."""
    found = []
    for served in (Served(base_of()), served_on(device)):
        on_cpu = BasisCache(CPU, served.bases._weights)
        leases: list[Entry | None] = [
            served.entry(given(served.spec, method, i, ("",), on_cpu), "factored")
            for i, method in enumerate(methods)
        ]
        found.append(served.engine.logits(decode_batch(served, leases)).cpu())
    assert (found[0] - found[1]).abs().max() < 2e-3


def check_canary(device: torch.device) -> None:
    report = run_canary(usual_methods(), [Shape(96, 160), Shape(257, 96)], BasisCache(device))
    assert report.checked
    assert not report.rerouted


def check_sampler(device: torch.device) -> None:
    """Seeded draws from the same logits are the CPU's."""
    logits = torch.randn(16, 1000, generator=torch.Generator().manual_seed(0))
    told: list[list[Sampled | None]] = []
    for where in (CPU, device):
        many = [
            TokenSequence((1,), Sampling(1, 0.5 + i / 8, 1 - i / 32, seed=i, num_logprobs=None))
            for i in range(16)
        ]
        told.append(sample_on_device(logits.to(where), many))
    assert told[0] == told[1]


def check_deterministic(device: torch.device) -> None:
    """The same prompts give the same bits again, engine after engine."""
    bits = []
    for _ in range(2):
        served = served_on(device, deterministic=True)
        batch = decode_batch(served, leases_of(served))
        bits += [served.engine.logits(batch).clone() for _ in range(3)]
    assert all(torch.equal(one, bits[0]) for one in bits)


def check_memory_returns(device: torch.device) -> None:
    """What adapters, merged weights and recordings took is free when they are gone."""
    served = served_on(device)

    def use() -> int:
        for merged in (0, 1):
            leases = leases_of(served, merged)
            if merged:
                leases = [leases[1]] * 3
            batch = decode_batch(served, leases)
            for _ in range(3):
                served.engine.logits(batch)
            del batch, leases
        served._banks.clear()
        served.engine.logits(decode_batch(served, [None]))
        graphs_of(served)._retire()
        graphs_of(served)._set_stale_aside()
        gc.collect()
        if device.type != "cuda":
            return len(list(graphs_of(served)._entries()))
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    first = use()
    for _ in range(3):
        assert use() <= first * (1.02 if device.type == "cuda" else 1)


def check_paged_kernel(device: torch.device) -> bool:
    """Return whether torch's paged kernel was used; if so it agrees with gathered keys."""
    found = []
    for way in (None, False):
        cache = DeviceCache(6, 256)
        cache._reads_pages = way
        generator = torch.Generator().manual_seed(1)
        for start, stop in ((0, 300), (300, 301)):
            sequence = TokenSequence((0,) * 301, Sampling(max_tokens=1))
            sequence.pages = [4, 2]
            work = Work.of(sequence, start, stop)
            single = stop == start + 1
            batch = Batch((work,), ()) if single else Batch((), (work,))
            step = pack(batch, 256, device)
            cache.begin(step.layout)
            rows = step.ids.shape[1]
            q, k, v = (
                torch.randn(1, heads, rows, 64, generator=generator).to(device, torch.bfloat16)
                for heads in (8, 2, 2)
            )
            out = cache.attend(0, q, k, v, Scoring())[0, : stop - start]
        found.append((out.float().cpu(), cache._reads_pages))
    (got, used), (true, _) = found
    assert (got - true).norm() <= 0.02 * true.norm()
    return bool(used)
