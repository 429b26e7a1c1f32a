"""Constraints on answers, and how far each sequence has come in its own."""

from collections.abc import Callable
from dataclasses import dataclass

from llguidance import LLMatcher

from server.errors import InvalidRequest


@dataclass(frozen=True)
class Compiled:
    """A constraint that any number of sequences share.

    Args:
        matcher: at an answer's beginning; never advanced.
        end: the bit of its masks that says whether the answer may end.
        param: the request's field that it comes from.
    """

    matcher: LLMatcher
    end: int
    param: str

    def begin(self, ends: frozenset[int]) -> "SequenceMatcher":
        """Return the constraint of a sequence without tokens, which `ends` may end."""
        return SequenceMatcher(self.matcher.deep_copy, self.end, ends, self.param)


class SequenceMatcher:
    """One sequence's constraint, as far as its tokens go; on the engine's thread only.

    Args:
        begin: returns the matcher at the answer's beginning.
        end: the bit of its masks that says whether the answer may end.
        ends: tokens that end the answer.
        param: the request's field that the constraint comes from.
    """

    def __init__(
        self, begin: Callable[[], LLMatcher], end: int, ends: frozenset[int], param: str
    ) -> None:
        self._begin = begin
        self._matcher: LLMatcher | None = None
        self._end = end
        self._ends = ends
        self._param = param
        self.fault: Exception | None = None

    def allowed(self, may_end: bool) -> bytearray | None:
        """Return the tokens that may follow, one bit each; None where there are none."""
        bits = bytearray(self._begun().compute_bitmask())
        is_whole = _take(bits, self._end)
        _take(bits, self._end + 1)  # what no token writes
        if is_whole and may_end:
            for token in self._ends:
                bits[token >> 3] |= 1 << (token & 7)
        if self._begun().is_error() or not any(bits):
            self._refuse(self._begun().get_error(), is_whole)
            return None
        return bits

    def advance(self, token: int) -> bool:
        """Enter a token; return whether nothing but an end may follow."""
        matcher = self._begun()
        if not matcher.consume_token(token):
            self._refuse(matcher.get_error(), is_whole=False)
            return False
        return matcher.is_stopped()

    def _begun(self) -> LLMatcher:
        if self._matcher is None:
            self._matcher = self._begin()
        return self._matcher

    def _refuse(self, reason: str, is_whole: bool) -> None:
        if reason:
            message = f"the constraint grew too large while the answer was made: {reason}"
        elif is_whole:
            message = (
                "the constraint's answer is whole, and min_tokens or ignore_eos forbid its end"
            )
        else:
            message = "none of the base's tokens can continue the answer as the constraint wants it"
        self.fault = InvalidRequest(message, self._param)


def _take(bits: bytearray, place: int) -> bool:
    """Return one bit, and clear it."""
    found = bool(bits[place >> 3] >> (place & 7) & 1)
    bits[place >> 3] &= ~(1 << (place & 7))
    return found
