"""The bare engine: a decode step with every row another adapter, against the base's own step.

What: median seconds of one step at 8 and 32 rows, each row with 64 tokens behind it, for the base,
for FourierFT (n = 1000) and LoRA (r = 16) on q,v and on all seven linears, factored, and for one
merged adapter; and tokens/s of 32 sequences against `model.generate` on the same static batch.
Why: a decode step is memory traffic of the base's weights; what an adapter adds must be small.
Ratios are what counts; both sides run in one process, interleaved.

    overtone bench engine [--only decode generate] [--rounds 15] [--width 1024] [--layers 8]
"""

from collections.abc import Sequence
from typing import Any

import torch

from adapters_core.contract.method import Method
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT, LoRA
from bench.lib.bases import llama, prompt_of, random_adapter, targets_of
from bench.lib.loop import PROMPT, EngineOfBase, Leases, factored, run_to_end
from bench.lib.program import Parser
from bench.lib.timing import interleaved, report
from server.adapters.payload import Merged
from server.adapters.residency import Entry
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

_NEW = 64
_PAGES = 32 * 40
_PARTS = ("decode", "generate")


class Bench(EngineOfBase):
    """One engine, and adapters in it."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__(width, layers, _PAGES)
        self.pool = PagePool(_PAGES, 32)

    def factored(self, method: Method, which: str, count: int) -> Leases:
        """Return leases of `count` different adapters in one bank."""
        return factored(self.spec, self.bases, method, which, count)

    def merged(self, method: Method, which: str) -> Entry:
        """Return a lease of one merged adapter."""
        targets = targets_of(self.spec, which)
        shapes = {target: self.spec.targets[target] for target in targets}
        methods, layers = random_adapter(method, shapes, self.bases, 0)
        weights = materialise(methods, layers, self.injection.linears, self.bases)
        return Entry(("0", "merged"), payload=Merged(weights))

    def decode(self, leases: Leases) -> Batch:
        """Return a decode step of sequences that have their prompt in the cache."""
        works = []
        for i, lease in enumerate(leases):
            sampling = Sampling(max_tokens=_NEW, temperature=0)
            sequence = TokenSequence(tuple(prompt_of(i, PROMPT)), sampling, lease)
            sequence.pages = self.pool.allocate(self.pool.pages_for(sequence.max_length)) or []
            self.engine.step(Batch((), (Work.of(sequence, 0, PROMPT),)))
            sequence.tokens.append(1)
            works.append(Work.of(sequence, PROMPT, PROMPT + 1))
        return Batch(tuple(works), ())

    def run(self, leases: Leases) -> int:
        """Generate for every lease from its prompt to its end; return the tokens generated."""
        return run_to_end(self.engine, leases, _PAGES, _NEW)


def step_rows(bench: Bench, rounds: int) -> list[dict[str, Any]]:
    """Return one row per number of rows and kind of adapter."""
    rows = []
    for count in (8, 32):
        kinds: dict[str, Leases] = {"base": [None] * count}
        for which in ("qv", "seven"):
            for method in (FourierFT(1000, 300.0), LoRA(16, 16.0)):
                kinds[f"{method.name} {which}"] = bench.factored(method, which, count)
        kinds["merged fourierft qv"] = [bench.merged(FourierFT(1000, 300.0), "qv")] * count
        bench.pool = PagePool(_PAGES, 32)
        batches = {kind: bench.decode(leases) for kind, leases in kinds.items()}
        steps = {
            kind: (lambda batch=batch: bench.engine.step(batch)) for kind, batch in batches.items()
        }
        seconds = interleaved(steps, rounds)
        for kind, value in seconds.items():
            ratio = value / seconds["base"]
            rows.append(
                {"what": f"decode {kind}", "rows": count, "ms": value * 1e3, "ratio": ratio}
            )
    return rows


def generate_row(bench: Bench, rounds: int) -> dict[str, Any]:
    """Return tokens/s of 32 base sequences beside `model.generate` on the same batch."""
    reference = llama(bench.spec.targets["model.layers.0.self_attn.q_proj"].in_, _layers(bench))
    ids = torch.tensor([prompt_of(i, PROMPT) for i in range(32)])
    mask = torch.ones_like(ids)

    def generate() -> None:
        with torch.inference_mode():
            reference.generate(  # type: ignore[operator]
                ids, attention_mask=mask, max_new_tokens=_NEW, min_new_tokens=_NEW, do_sample=False
            )

    seconds = interleaved({"ours": lambda: bench.run([None] * 32), "generate": generate}, rounds)
    speeds = {name: 32 * _NEW / value for name, value in seconds.items()}
    ratio = speeds["ours"] / speeds["generate"]
    return {"what": "tokens/s of 32 rows against model.generate", **speeds, "ratio": ratio}


def _layers(bench: Bench) -> int:
    return sum(target.endswith("q_proj") for target in bench.spec.targets)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench engine", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    options = parser.parse_args(arguments)
    bench = Bench(options.width, options.layers)
    rows = step_rows(bench, options.rounds) if "decode" in options.only else []
    if "generate" in options.only:
        rows.append(generate_row(bench, max(5, options.rounds // 3)))
    report("engine", rows)
