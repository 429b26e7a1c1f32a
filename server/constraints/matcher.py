"""Constraints on answers, and how far each sequence has come in its own."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llguidance import LLMatcher

from server.constraints.trie import Vocabulary
from server.errors import InvalidRequest

#: Processor seconds that an answer's masks may take: once, and for each token. All sequences of a
#: step wait for them.
_FREE_S, _TOKEN_S = 0.25, 0.005


@dataclass(frozen=True)
class Compiled:
    """A constraint that any number of sequences share.

    Args:
        matcher: at an answer's beginning; never advanced.
        vocabulary: of the base.
        param: the request's field that it comes from.
        size_bytes: that it takes, about.
    """

    matcher: LLMatcher
    vocabulary: Vocabulary
    param: str
    size_bytes: int = 0

    def begin(self, ends: frozenset[int], prompt: Sequence[int] | None = None) -> "SequenceMatcher":
        """Return the constraint of a sequence without tokens.

        Args:
            ends: tokens that may end it.
            prompt: the tokens before it; where none of them is text, no token is chosen first that
                would be written otherwise there. None stands for some text.
        """
        is_behind_text = prompt is None or self.vocabulary.says_text(reversed(prompt))
        not_first = frozenset() if is_behind_text else self.vocabulary.changed_first
        matcher = self.matcher.deep_copy
        return SequenceMatcher(matcher, self.vocabulary.end, ends, not_first, self.param)


class SequenceMatcher:
    """One sequence's constraint, as far as its tokens go; on the engine's thread only.

    Args:
        begin: returns the matcher at the answer's beginning.
        end: the bit of its masks that says whether the answer may end.
        ends: tokens that end the answer.
        not_first: tokens with which it may not begin.
        param: the request's field that the constraint comes from.
    """

    def __init__(
        self,
        begin: Callable[[], LLMatcher],
        end: int,
        ends: frozenset[int],
        not_first: frozenset[int],
        param: str,
    ) -> None:
        self._begin = begin
        self._matcher: LLMatcher | None = None
        self._end = end
        self._ends = ends
        self._forbidden = not_first
        self._param = param
        self._left_s = _FREE_S
        self.fault: InvalidRequest | None = None

    def allowed(self, may_end: bool) -> bytearray | None:
        """Return the tokens that may follow, one bit each; None where there are none."""
        if self.fault is not None:
            return None
        matcher = self._begun()
        bits = bytearray(self._timed(matcher.compute_bitmask))
        is_whole = wants_end = _put(bits, self._end, False)
        _put(bits, self._end + 1, False)  # what no token writes
        for token in self._forbidden:
            _put(bits, token, False)
        if is_whole or not may_end:
            wants_end |= True in {_put(bits, token, may_end) for token in self._ends}
        is_empty = bits == bytes(len(bits))  # any() takes longer than all else where few are set
        if matcher.is_error() or self._left_s < 0 or is_empty:
            self.fault = self._fault(matcher.get_error(), wants_end)
            return None
        return bits

    def advance(self, token: int) -> bool:
        """Enter a token; return whether nothing but an end may follow."""
        matcher = self._begun()
        self._left_s += _TOKEN_S
        self._forbidden = frozenset()
        if not matcher.consume_token(token):
            self.fault = self.fault or self._fault(matcher.get_error(), wants_end=False)
            return False
        return matcher.is_stopped()

    def _begun(self) -> LLMatcher:
        if self._matcher is None:
            self._matcher = self._begin()
        return self._matcher

    def _timed(self, compute: Callable[[], bytes]) -> bytes:
        """Compute, and count the processor's time of this thread."""
        started = time.thread_time()
        result = compute()
        self._left_s -= time.thread_time() - started
        return result

    def _fault(self, reason: str, wants_end: bool) -> InvalidRequest:
        """Return why no token may follow.

        Args:
            reason: llguidance's, if it has one.
            wants_end: whether an end token could follow, if it were allowed.
        """
        words = "none of the base's tokens can continue the answer as it wants"
        if self._left_s < 0:
            words = f"it takes more than {_TOKEN_S * 1000:g} ms a token to be followed"
        elif reason:
            words = f"it cannot be followed any further: {reason.splitlines()[0]}"
        elif wants_end:
            words = "only an end token could follow, and min_tokens or ignore_eos forbid it"
        return InvalidRequest(f"{self._param}: {words}", self._param)


def _put(bits: bytearray, place: int, value: bool) -> bool:
    """Set one bit; return what it was."""
    byte, bit = place >> 3, 1 << (place & 7)
    before = bool(bits[byte] & bit)
    bits[byte] = bits[byte] | bit if value else bits[byte] & ~bit
    return before
