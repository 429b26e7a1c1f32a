"""Decode steps of 32 rows that sample, against greedy ones.

What: tokens/s of decode steps of the base, 32 rows with a prompt of 64 tokens and some dozen of
their own, every row with the same parameters: greedy, plain temperature, each cut, and penalties
with top_k. Sequences grow by a token each step, and take turns step by step.
Why: a token's choice reads the whole vocabulary; beside the step it must not be seen. That is
hardest over a large vocabulary, and over a base so small that a step takes milliseconds: run both.

    overtone bench sampling [--rounds 31] [--width 1024] [--layers 8] [--vocabulary 131072]
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from bench.lib.bases import prompt_of
from bench.lib.loop import PROMPT, EngineOfBase
from bench.lib.program import Parser
from bench.lib.timing import interleaved, report
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

_ROWS = 32
#: Tokens of its own that each sequence has before the first step.
_BEGUN = 64
_PENALTIES = {"repetition_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": 0.2}
KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "temperature": {},
    "top_k": {"top_k": 50},
    "top_p": {"top_p": 0.9},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.9},
    "penalties, greedy": {"temperature": 0.0, **_PENALTIES},
    "penalties and top_k": {"top_k": 50, **_PENALTIES},
}


class Decoding:
    """Sequences that decode together, a step at a time.

    Args:
        served: an engine of which nothing else uses these pages.
        pool: where the pages are from.
        steps: that will be taken.
        params: of every sequence's sampling.
    """

    def __init__(
        self, served: EngineOfBase, pool: PagePool, steps: int, params: dict[str, Any]
    ) -> None:
        self._engine = served.engine
        self._sequences = []
        for row in range(_ROWS):
            sampling = Sampling(max_tokens=_BEGUN + steps, seed=row, **params)
            text = prompt_of(row, PROMPT + _BEGUN, served.vocabulary)
            sequence = TokenSequence(tuple(text[:PROMPT]), sampling)
            sequence.tokens += text[PROMPT:]
            sequence.pages = pool.allocate(pool.pages_for(sequence.max_length)) or []
            self._engine.logits(Batch((), (Work.of(sequence, 0, len(sequence.tokens)),)))
            sequence.tokens.append(1)
            self._sequences.append(sequence)

    def step(self) -> None:
        """Compute and enter one token for every sequence."""
        ends = [len(sequence.tokens) for sequence in self._sequences]
        works = [Work.of(one, end - 1, end) for one, end in zip(self._sequences, ends, strict=True)]
        found = self._engine.step(Batch(tuple(works), ()))
        for sequence, sampled in zip(self._sequences, found, strict=True):
            assert sampled is not None
            sequence.enter(sampled.token)


def rows_of(served: EngineOfBase, pages: int, rounds: int) -> list[dict[str, Any]]:
    """Return one row for each kind of sampling."""
    pool = PagePool(pages, served.engine.page_size)
    kinds = {name: Decoding(served, pool, rounds + 1, params) for name, params in KINDS.items()}
    steps: dict[str, Callable[[], object]] = {name: kind.step for name, kind in kinds.items()}
    seconds = interleaved(steps, rounds)
    return [
        {
            "what": f"decode, {name}",
            "rows": _ROWS,
            "ms": value * 1e3,
            "tokens_per_s": _ROWS / value,
            "ratio": seconds["greedy"] / value,
        }
        for name, value in seconds.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench sampling", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=131_072)
    options = parser.parse_args(arguments)
    length = PROMPT + _BEGUN + options.rounds + 1
    pages = _ROWS * len(KINDS) * (length // 32 + 1)
    served = EngineOfBase(options.width, options.layers, pages, options.vocabulary)
    with torch.inference_mode():
        report("sampling", rows_of(served, pages, options.rounds))
