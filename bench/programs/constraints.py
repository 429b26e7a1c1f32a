"""Constrained decoding: compiling, masks, and a step with 1, 8 and 32 constrained rows.

What: for each vocabulary, milliseconds until its tokens are read and until a small and a large
schema are compiled (in the process of limits, and here), microseconds of a mask over a whole answer
and of its slowest one; then the median step of 32 rows that are drawn at temperature 1, with 0, 1,
8 and 32 of them in an answer that a schema holds, its masks and what the scheduler enters included.
Why: a constrained answer must not make its neighbours wait: a step with one of 32 may take 5%
longer.

    overtone bench constraints [--vocabularies 8192 32000 150000] [--rounds 60]
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from bench.lib.bases import prompt_of
from bench.lib.loop import PAGE_SIZE, PROMPT, EngineOfBase
from bench.lib.program import Parser
from bench.lib.timing import interleaved, report
from bench.lib.vocabularies import byte_level
from server.constraints.compiler import Constraints
from server.constraints.matcher import Compiled
from server.constraints.spec import ConstraintSpec
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import Sampling, TokenSequence
from server.scheduling.step import Batch, Work

_ROWS = 32
_CONSTRAINED = (0, 1, 8, 32)
_PAGES = _ROWS * len(_CONSTRAINED) * (PROMPT // PAGE_SIZE + 1)
_PARAM = "schema"

SMALL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def large(properties: int = 50, parts: int = 8) -> dict[str, Any]:
    """Return a schema of some hundred properties of all kinds."""
    kinds: list[dict[str, Any]] = [
        {"type": "string", "maxLength": 40},
        {"type": "number"},
        {"enum": ["red", "green", "blue"]},
        {"type": "array", "items": {"type": "integer"}},
        {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}]},
    ]
    names = [f"field{i}" for i in range(properties)]
    part = _closed({name: kinds[i % len(kinds)] for i, name in enumerate(names)})
    return _closed({f"part{i}": {"$ref": "#/$defs/part"} for i in range(parts)}) | {
        "$defs": {"part": part}
    }


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


#: Name -> schema, and an answer within it.
SCHEMAS: dict[str, tuple[Any, Any]] = {
    "any object": ({"type": "object"}, {"a": {"b": [1, 2.5, None]}, "c": "some more words here"}),
    "3 properties": (SMALL, {"name": "Ada Lovelace", "age": 36, "tags": ["first", "of them"]}),
    "400 properties": (
        large(),
        {
            f"part{i}": {
                f"field{k}": ("some words here", 3.25, "red", [1, 22, 333], "AB-12")[k % 5]
                for k in range(50)
            }
            for i in range(8)
        },
    ),
}


def compile_rows(tokenizer: PreTrainedTokenizerFast, constraints: Constraints) -> list[Any]:
    """Return how long it takes to read the tokens, and to compile and follow each schema."""
    size = len(tokenizer)
    first = _ms(constraints, ConstraintSpec.regex("a", _PARAM))
    rows = [{"what": "first constraint", "vocabulary": size, "ms": first}]
    for name, (schema, answer) in SCHEMAS.items():
        spec = ConstraintSpec.json_schema(schema, _PARAM)
        row = {"what": name, "vocabulary": size, "ms": _ms(constraints, spec)}
        compiled = asyncio.run(constraints.compiled(spec))
        rows.append(row | _masks(compiled, tokenizer, json.dumps(answer)))
    return rows


def _ms(constraints: Constraints, spec: ConstraintSpec) -> float:
    started = time.perf_counter()
    asyncio.run(constraints.compiled(spec))
    return (time.perf_counter() - started) * 1e3


def _masks(compiled: Compiled, tokenizer: PreTrainedTokenizerFast, answer: str) -> dict[str, Any]:
    """Return how long each token of an answer takes, twice: lexers are built on the way."""
    found: dict[str, Any] = {}
    tokens = tokenizer(answer)["input_ids"]
    for walk in ("first", "again"):
        matcher, times = compiled.begin(frozenset()), []
        for token in tokens:
            started = time.perf_counter()
            matcher.allowed(may_end=True)
            matcher.advance(token)
            times.append((time.perf_counter() - started) * 1e6)
        assert matcher.fault is None, matcher.fault
        found |= {f"{walk}_us": statistics.mean(times), f"{walk}_max_us": max(times)}
    return found | {"tokens": len(tokens)}


class Steps:
    """Decode steps of 32 rows, some of which are constrained."""

    def __init__(self, vocabulary: int, width: int, layers: int) -> None:
        self.engine = EngineOfBase(width, layers, _PAGES, vocabulary).engine
        self.pool = PagePool(_PAGES, PAGE_SIZE)

    def batch(self) -> Batch:
        """Return a step of sequences that have their prompts in the cache."""
        works = []
        for i in range(_ROWS):
            sequence = TokenSequence(tuple(prompt_of(i, PROMPT)), Sampling(max_tokens=1, seed=i))
            sequence.pages = self.pool.allocate(self.pool.pages_for(sequence.max_length)) or []
            self.engine.step(Batch((), (Work.of(sequence, 0, PROMPT),)))
            sequence.tokens.append(1)
            works.append(Work.of(sequence, PROMPT, PROMPT + 1))
        return Batch(tuple(works), ())

    def run(self, batch: Batch, compiled: Compiled, count: int) -> None:
        """Compute a step in which `count` rows are constrained, and enter their tokens."""
        sequences = [work.sequence for work in batch.works]
        for sequence in sequences[:count]:
            sequence.constraint = sequence.constraint or compiled.begin(frozenset())
        tokens = self.engine.step(batch)
        for sequence, token in zip(sequences[:count], tokens, strict=False):
            assert sequence.constraint is not None
            assert token is not None
            if sequence.constraint.advance(token.token):  # an answer is whole: the next one
                sequence.constraint = None


def step_rows(steps: Steps, compiled: Compiled, rounds: int) -> list[Any]:
    """Return the median step with each number of constrained rows."""
    batches = {count: steps.batch() for count in _CONSTRAINED}
    contenders = {
        str(count): (lambda batch=batch, count=count: steps.run(batch, compiled, count))
        for count, batch in batches.items()
    }
    seconds = interleaved(contenders, rounds)
    return [
        {"constrained": int(count), "ms": value * 1e3, "ratio": value / seconds["0"]}
        for count, value in seconds.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench constraints", description=__doc__.splitlines()[0])
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[8192, 32_000, 150_000])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    options = parser.parse_args(arguments)
    rows = []
    for vocabulary in options.vocabularies:
        tokenizer = byte_level(vocabulary)
        constraints = Constraints(tokenizer, len(tokenizer))
        try:
            rows += compile_rows(tokenizer, constraints)
            compiled = asyncio.run(constraints.compiled(ConstraintSpec.json_schema(SMALL, _PARAM)))
            steps = Steps(len(tokenizer), options.width, options.layers)
            found = step_rows(steps, compiled, options.rounds)
            rows += [{"what": "step", "vocabulary": len(tokenizer), **row} for row in found]
        finally:
            constraints.close()
    report("constraints", rows)
