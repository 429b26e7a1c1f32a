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


def answer_of(constraint: Compiled, tokenizer: Any, seed: int, most: int = 400) -> str | None:
    """Return an answer of random allowed tokens; None if it is not whole after `most` of them.

    Printable characters are likelier than others, and the longer the answer, the likelier its end.
    """
    random, end = Random(seed), tokenizer.eos_token_id
    matcher = constraint.begin(frozenset({end}))
    closing = {tokenizer.convert_tokens_to_ids(one) for one in _CLOSING}
    tokens: list[int] = []
    while len(tokens) < most:
        allowed = tokens_of(matcher.allowed(may_end=True))
        ends = allowed & closing
        if end in allowed and (len(allowed) == 1 or random.random() < 0.3):
            return str(tokenizer.decode(tokens))
        if ends and random.random() < 0.2 + len(tokens) / most:
            allowed = ends
        tokens.append(int(random.choice(sorted(allowed - {end}))))
        if matcher.advance(tokens[-1]):
            return str(tokenizer.decode(tokens))
    return None


def faults_of(answer: str, schema: Any) -> list[str]:
    """Return what is wrong with an answer by the reference implementation of JSON Schema."""
    kind = validator_for(schema, default=Draft202012Validator)
    validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
    return [error.message for error in validator.iter_errors(json.loads(answer))]
