"""A chat's answer, piece by piece: text in, content and calls of functions out.

A whole answer is the concatenation of its pieces.
"""

import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from adapters_core.calls.form import SHORT_ID, CallForm
from adapters_core.calls.reader import CallPiece, CallReader, Content, Piece

_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class CallDelta:
    """What is new of one call.

    Args:
        index: of the call in its message, from 0.
        arguments: the next part of its arguments, which are a JSON object as text.
        id: with the first piece of a call only; so is its function's name.
        name: of the function.
    """

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class MessageDelta:
    """What a piece of text adds to a message: content, or a piece of a call; or nothing."""

    content: str = ""
    call: CallDelta | None = None


@dataclass(frozen=True)
class ToolUse:
    """How the calls in answers to one request are read.

    Args:
        form: in which the base writes calls.
        names: of the functions that may be called.
        max_calls: of one answer; None for any number.
        is_sure: whether calls cannot be malformed, since answers are constrained.
        shown: special tokens with which the base writes calls.
    """

    form: CallForm
    names: frozenset[str]
    max_calls: int | None = None
    is_sure: bool = False
    shown: frozenset[int] = field(default_factory=frozenset)

    def stream(self) -> "MessageStream":
        """Return the stream of one choice's message."""
        return MessageStream(CallReader(self.form, self.names, self.is_sure, self.max_calls))


class MessageStream:
    """One choice's message.

    Args:
        reader: of its calls.
    """

    def __init__(self, reader: CallReader) -> None:
        self._reader = reader
        self._ids = set[str]()

    def push(self, text: str, is_last: bool = False) -> list[MessageDelta]:
        """Take the next piece of the answer's text; with the last one nothing is held back."""
        pieces = self._reader.push(text)
        if is_last:
            pieces += self._reader.finish()
        return [self._delta(piece) for piece in pieces]

    @property
    def has_calls(self) -> bool:
        """Return whether a call has begun; the last one may be cut off."""
        return self._reader.has_begun

    @property
    def is_over(self) -> bool:
        """Return whether the message takes no more text: it has all calls that it may have."""
        return self._reader.is_over

    def _delta(self, piece: Piece) -> MessageDelta:
        if isinstance(piece, Content):
            return MessageDelta(piece.text)
        call_id = None if piece.name is None else self._id(piece)
        return MessageDelta(call=CallDelta(piece.index, piece.arguments, call_id, piece.name))

    def _id(self, piece: CallPiece) -> str:
        """Return a call's id: the base's own, if other servers would take it, or a new one."""
        found = piece.id
        if not re.fullmatch(SHORT_ID, found) or found in self._ids:
            found = "".join(secrets.choice(_LETTERS) for _ in range(9))
        self._ids.add(found)
        return found


def whole_calls(deltas: Iterable[MessageDelta]) -> list[CallDelta]:
    """Return the calls that deltas add up to, in their order."""
    pieces = [delta.call for delta in deltas if delta.call is not None]
    begun = [piece for piece in pieces if piece.name is not None]
    arguments = [list[str]() for _ in begun]
    for piece in pieces:
        arguments[piece.index].append(piece.arguments)
    return [replace(one, arguments="".join(arguments[one.index])) for one in begun]
