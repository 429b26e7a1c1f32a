"""What bfloat16 costs in the answer: KL(bf16 || float32) of each next token.

What: the same tokens go through two engines, one in bfloat16 and one in float32, over the same
weights (rounded to bfloat16 before, so that only the arithmetic differs). For the base, and for
FourierFT and LoRA on query and value, factored and merged, each changing its layers by a twentieth
of their norm: mean, 99th percentile and largest KL divergence a token in nats, and how often the
likeliest token is another one.
Why: a GPU serves in bfloat16, and a merged weight is rounded once more: an adapter must not lose
more by that than the base does.

    overtone bench numerics [--width 1024] [--layers 8] [--prompts 16] [--length 96]
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.spec import spec_of
from adapters_core.contract.method import Method
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT, LoRA
from bench.lib.bases import llama, prompt_of, random_adapter, targets_of
from bench.lib.program import Parser
from bench.lib.timing import report
from server.adapters.modes import Mode
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.engine.engine import Engine
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

#: ||delta|| of a layer, of its weight's norm.
_SIZE = 0.05
#: The tensor of each method that its delta is proportional to.
_LINEAR = {"fourierft": "fourierft_spectrum", "lora": "lora_B.weight"}
PAGE_SIZE = 32

Adapter = tuple[dict[str, Method], dict[str, dict[str, Tensor]]]


def rounded(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the model with weights that bfloat16 holds exactly, in float32 and in bfloat16."""
    low = copy.deepcopy(model).to(torch.bfloat16)
    return copy.deepcopy(low).float(), low


class Side:
    """One dtype's engine."""

    def __init__(self, model: nn.Module, num_pages: int) -> None:
        self.spec = spec_of(model, "numerics")
        self.injection = inject(model)
        self.bases = BasisCache(next(model.parameters()).device)
        self.engine = Engine(self.injection, num_pages, PAGE_SIZE)
        self._num_pages = num_pages

    def adapter(self, method: Method, seed: int) -> Adapter:
        """Return a random adapter of query and value, each layer's delta of one relative size."""
        shapes = {target: self.spec.targets[target] for target in targets_of(self.spec, "qv")}
        methods, layers = random_adapter(method, shapes, self.bases, seed)
        for target, layer in layers.items():
            basis = self.bases.get(methods[target], shapes[target])
            norm = methods[target].delta(layer, shapes[target], basis).norm()
            weight = self.injection.linears[target].golden().float().norm()
            name = _LINEAR[method.name]
            layer[name] = layer[name] * (_SIZE * weight / norm)
        return methods, layers

    def lease(self, adapter: Adapter, mode: Mode) -> Entry:
        """Return the adapter as a loader would have it in memory."""
        methods, layers = adapter
        if mode == "merged":
            weights = materialise(methods, layers, self.injection.linears, self.bases)
            return Entry(("0", mode), payload=Merged(weights))
        bank = Bank(Layout.of(methods, self.spec.targets), self.bases)
        return Entry(("0", mode), payload=Factored(bank, bank.add(bank.pack(methods, layers))))

    def logprobs(self, prompts: list[list[int]], lease: Entry | None) -> Iterator[Tensor]:
        """Yield log-probabilities `[prompts, vocabulary]`, float64, of the second half."""
        pool = PagePool(self._num_pages, PAGE_SIZE)
        length = len(prompts[0])
        sequences = [TokenSequence(tuple(p), Sampling(max_tokens=1), lease) for p in prompts]
        for sequence in sequences:
            sequence.pages = pool.allocate(pool.pages_for(length)) or []
            self.engine.logits(Batch((), (Work(sequence, 0, length // 2, False),)))
        for i in range(length // 2, length):
            works = tuple(Work(sequence, i, i + 1, True) for sequence in sequences)
            yield torch.log_softmax(self.engine.logits(Batch(works, ())).double(), dim=1)


def divergences(
    high: Side, low: Side, prompts: list[list[int]], leases: tuple[Entry | None, Entry | None]
) -> dict[str, Any]:
    """Return mean, p99 and max of KL(low || high) a token, and how often the likeliest differs."""
    found, moved = [], []
    pairs = zip(high.logprobs(prompts, leases[0]), low.logprobs(prompts, leases[1]), strict=True)
    for true, got in pairs:
        found.append((got.exp() * (got - true)).sum(dim=1))
        moved.append(true.argmax(dim=1) != got.argmax(dim=1))
    kl = torch.cat(found)
    return {
        "tokens": kl.numel(),
        "mean": float(kl.mean()),
        "p99": float(kl.quantile(0.99)),
        "max": float(kl.max()),
        "argmax_moved": float(torch.cat(moved).double().mean()),
    }


def measure(model: nn.Module, prompts: list[list[int]]) -> list[dict[str, Any]]:
    """Return one row for the base and for each method and mode."""
    num_pages = len(prompts) * -(-len(prompts[0]) // PAGE_SIZE) + 2
    high, low = (Side(one, num_pages) for one in rounded(model))
    rows = [{"what": "base"} | divergences(high, low, prompts, (None, None))]
    for method in (FourierFT(1000, 300.0), LoRA(16, 16.0)):
        fitted = method.fitted(min(high.spec.targets.values(), key=lambda s: s.out * s.in_))
        adapter = high.adapter(fitted, seed=1)
        for mode in ("factored", "merged"):
            leases = (high.lease(adapter, mode), low.lease(adapter, mode))
            what = {"what": f"{method.name} qv {mode}"}
            rows.append(what | divergences(high, low, prompts, leases))
    return rows


def main() -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench numerics", description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--length", type=int, default=96)
    options = parser.parse_args()
    prompts = [prompt_of(i, options.length) for i in range(options.prompts)]
    with torch.inference_mode():
        report("numerics", measure(llama(options.width, options.layers), prompts))
