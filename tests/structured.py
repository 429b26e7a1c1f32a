"""Random answers within constraints, and whether they are what was asked for."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from server.constraints.compiler import Constraints
from server.constraints.matcher import Compiled
from server.constraints.spec import ConstraintSpec

#: Tokens that bring an answer to its end.
_CLOSING = {'"', "}", "]"}


@contextmanager
def constraints_of(tokenizer: Any, vocabulary: int | None = None) -> Iterator[Constraints]:
    """Yield the constraints of a base with this tokenizer."""
    made = Constraints(tokenizer, vocabulary or len(tokenizer))
    try:
        yield made
    finally:
        made.close()


def compiled(constraints: Constraints, spec: ConstraintSpec) -> Compiled:
    """Return a constraint."""
    return asyncio.run(constraints.compiled(spec))


def tokens_of(bits: bytearray | None) -> set[int]:
    """Return the tokens of a mask."""
    assert bits is not None
    return set(np.nonzero(np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little"))[0])


def answer_of(constraint: Compiled, tokenizer: Any, seed: int) -> str | None:
    """Return the text of `chosen` tokens behind some text."""
    tokens = chosen(constraint, tokenizer, seed)
    return None if tokens is None else str(tokenizer.decode(tokens))


def chosen(
    constraint: Compiled,
    tokenizer: Any,
    seed: int,
    prompt: list[int] | None = None,
    most: int = 400,
) -> list[int] | None:
    """Return random allowed tokens; None if they are no whole answer after `most` of them.

    The longer the answer, the likelier is its end.
    """
    random, end = Random(seed), tokenizer.eos_token_id
    matcher = constraint.begin(frozenset({end}), prompt)
    closing = {tokenizer.convert_tokens_to_ids(one) for one in _CLOSING}
    tokens: list[int] = []
    while len(tokens) < most:
        bits = matcher.allowed(may_end=True)
        if bits is None:
            return None
        allowed = tokens_of(bits)
        ends = allowed & closing
        if end in allowed and (len(allowed) == 1 or random.random() < 0.3):
            return tokens
        if ends and random.random() < 0.2 + len(tokens) / most:
            allowed = ends
        tokens.append(int(random.choice(sorted(allowed - {end}))))
        if matcher.advance(tokens[-1]):
            return tokens
    return None


def faults_of(answer: str, schema: Any) -> list[str]:
    """Return what is wrong with an answer by the reference implementation of JSON Schema."""
    kind = validator_for(schema, default=Draft202012Validator)
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(json.loads(answer))]
