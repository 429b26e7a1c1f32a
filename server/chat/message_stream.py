"""A chat's answer, piece by piece: text in, content and calls of functions out.

A whole answer is the concatenation of its pieces.
"""

from dataclasses import dataclass


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
    """What a piece of text adds to a message; may be nothing while text is held back."""

    content: str = ""
    calls: tuple[CallDelta, ...] = ()


class MessageStream:
    """One choice's message."""

    def push(self, text: str) -> MessageDelta:
        """Take the next piece of the answer's text."""
        return MessageDelta(text)

    def finish(self) -> MessageDelta:
        """Return what was held back; nothing follows."""
        return MessageDelta()

    @property
    def num_calls(self) -> int:
        """Return how many calls the message has so far."""
        return 0

    @property
    def is_over(self) -> bool:
        """Return whether the message takes no more text: it has all calls that it may have."""
        return False
