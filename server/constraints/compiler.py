"""Compiles constraints beside the event loop, each once."""

import asyncio
import json
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

from llguidance import LLTokenizer

from server.constraints.grammar import matcher_of
from server.constraints.matcher import Compiled
from server.constraints.refusals import refusal
from server.constraints.schema import exact_schema
from server.constraints.spec import ConstraintSpec
from server.constraints.trial_process import NotTried, Refused, TooCostly, TrialProcess, Tried
from server.constraints.trie import Vocabulary
from server.constraints.vocabulary import NotReadable, vocabulary_of
from server.errors import InvalidRequest, Overloaded, UnsupportedParameter

#: Compiled constraints that are kept, and refusals; the least recently used goes first.
_MAX_KEPT = 128
_MAX_KEPT_BYTES = 2**28
#: So many may wait to be compiled.
_MAX_WAITING = 64
#: Of a constraint's text, in characters.
MAX_TEXT = 2**18


class Constraints:
    """The constraints of one base.

    Nothing is made before the first one is asked for: then its tokens are read.

    Args:
        tokenizer: the base's, of transformers.
        vocabulary: how many logits the base has.
    """

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self._size = vocabulary
        self._kept: OrderedDict[ConstraintSpec, Future[Compiled]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "overtone-constraints")
        self._trial: TrialProcess | None = None

    async def compiled(self, spec: ConstraintSpec) -> Compiled:
        """Return a constraint, compiled on a thread of its own unless it is known; on one loop.

        Raises:
            InvalidRequest: it is malformed, too large, or the base's tokens cannot write it.
            UnsupportedParameter: it has parts that are not supported, named in the message.
            Overloaded: too many others wait to be compiled, or the process for it was ended.
        """
        future = self._kept.get(spec)
        if future is None:
            future = self._kept[spec] = self._submitted(spec)
            self._evict()
        self._kept.move_to_end(spec)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except InvalidRequest:
            raise
        except Exception:  # not a property of the constraint
            self._kept.pop(spec, None)
            raise

    def close(self) -> None:
        """End the thread and its process; what waits to be compiled is cancelled."""
        self._thread.shutdown(cancel_futures=True)
        if self._trial is not None:
            self._trial.close()

    def _evict(self) -> None:
        while len(self._kept) > _MAX_KEPT or sum(map(_size, self._kept.values())) > _MAX_KEPT_BYTES:
            self._kept.popitem(last=False)

    def _submitted(self, spec: ConstraintSpec) -> "Future[Compiled]":
        if spec.num_chars > MAX_TEXT:
            message = (
                f"{spec.param} has {spec.num_chars} characters; at most {MAX_TEXT} are compiled"
            )
            raise InvalidRequest(message, spec.param)
        if sum(not future.done() for future in self._kept.values()) >= _MAX_WAITING:
            raise Overloaded(f"{_MAX_WAITING} constraints wait to be compiled", spec.param)
        return self._thread.submit(self._compile, spec)

    def _compile(self, spec: ConstraintSpec) -> Compiled:
        if self._unreadable is not None:
            message = (
                f"{spec.param} is not supported on this base: its tokenizer does not write an "
                f"answer token by token: {self._unreadable}"
            )
            raise UnsupportedParameter(message, spec.param)
        tried = self._tried(spec)
        matcher = matcher_of(self._trie, tried.grammar)
        compiled = Compiled(matcher, self._vocabulary, spec.param, tried.size_bytes)
        begun = compiled.begin(frozenset())
        if begun.allowed(may_end=True) is None and begun.fault is not None:
            raise begun.fault
        return compiled

    def _tried(self, spec: ConstraintSpec) -> Tried:
        """Return a constraint that can be compiled here."""
        text = spec.text
        if spec.kind == "json_schema":
            text = json.dumps(exact_schema(json.loads(text), spec.is_strict, spec.param))
        elif spec.kind == "parts":
            text = json.dumps({"grammar": text, "schemas": _exact_parts(spec)})
        self._trial = self._trial or TrialProcess(self._vocabulary)
        try:
            return self._trial.tried(spec.kind, text)
        except Refused as reason:
            raise refusal(str(reason), spec.param) from reason
        except TooCostly as reason:
            raise InvalidRequest(f"{spec.param} is too large: {reason}", spec.param) from reason
        except NotTried as reason:
            raise Overloaded(f"{spec.param}: {reason}; send it again", spec.param) from reason

    @cached_property
    def _unreadable(self) -> str | None:
        """Return why the base's tokens cannot be read; None if they can."""
        try:
            _ = self._trie
        except NotReadable as reason:
            return str(reason)
        return None

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return vocabulary_of(self._tokenizer, self._size)

    @cached_property
    def _trie(self) -> LLTokenizer:
        return self._vocabulary.trie()


def _exact_parts(spec: ConstraintSpec) -> dict[str, Any]:
    """Return the schemas that a constraint refers to, made exact, by their names."""
    return {
        part.name: exact_schema(json.loads(part.text), part.is_strict, part.param)
        for part in spec.parts
    }


def _size(future: "Future[Compiled]") -> int:
    """Return the bytes of a constraint; none while it is compiled, or if it cannot be."""
    is_there = future.done() and not future.cancelled() and future.exception() is None
    return future.result().size_bytes if is_there else 0
