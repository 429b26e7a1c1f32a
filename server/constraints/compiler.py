"""Compiles constraints beside the event loop, each once."""

import asyncio
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

from llguidance import LLMatcher, LLTokenizer, grammar_from

from server.constraints.matcher import Compiled
from server.constraints.spec import ConstraintSpec
from server.constraints.vocabulary import NotReadable, Vocabulary, vocabulary_of
from server.errors import InvalidRequest, UnsupportedParameter

#: Compiled constraints that are kept; the least recently used goes first.
_MAX_KEPT = 128


class Constraints:
    """The constraints of one base.

    Args:
        tokenizer: the base's, of transformers.
        vocabulary: how many logits the base has.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._size = vocabulary
        self._kept: OrderedDict[ConstraintSpec, Future[Compiled]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "overtone-constraints")

    async def compiled(self, spec: ConstraintSpec) -> Compiled:
        """Return a constraint, compiled on a thread of its own unless it is known; on one loop.

        Raises:
            InvalidRequest: it is malformed, or the base's tokens cannot write what it wants.
            UnsupportedParameter: it has parts that are not supported, named in the message.
        """
        future = self._kept.get(spec)
        if future is None:
            future = self._kept[spec] = self._thread.submit(self._compile, spec)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(spec)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except Exception:
            self._kept.pop(spec, None)
            raise

    def _compile(self, spec: ConstraintSpec) -> Compiled:
        matcher = LLMatcher(self._trie(spec), _grammar(spec), log_level=0)
        if matcher.is_error():
            raise InvalidRequest(matcher.get_error(), spec.param)
        compiled = Compiled(matcher, self._vocabulary.end, spec.param)
        first = compiled.begin(frozenset())
        if first.allowed(may_end=False) is None and first.fault is not None:
            raise first.fault
        return compiled

    def _trie(self, spec: ConstraintSpec) -> LLTokenizer:
        try:
            return self._tokens
        except NotReadable as reason:
            message = (
                f"{spec.param} is not supported on this base: its tokenizer does not write an "
                f"answer token by token ({reason})"
            )
            raise UnsupportedParameter(message, spec.param) from reason

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_of(self._tokenizer, self._size)

    @cached_property
    def _tokens(self) -> LLTokenizer:
        return self._vocabulary.trie()


def _grammar(spec: ConstraintSpec) -> str:
    """Return a constraint in llguidance's form.

    Raises:
        InvalidRequest: it is malformed.
    """
    try:
        return grammar_from(spec.kind, spec.text)
    except ValueError as error:
        raise InvalidRequest(str(error), spec.param) from error
