"""Forward a request to a replica of a base, and to another one if that is lost. Knows no Ray."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass

from adapters_core.errors import BaseMismatch
from registry import AdapterNotFound
from server.cluster.asked import Asked
from server.cluster.messages import Forwarded, Head, ReplicaLost
from server.errors import InternalError, NotReady, body_of

#: Of one answer: a `Head`, then bytes.
Pieces = AsyncGenerator[Head | bytes]
#: Base, routing key, request -> the answer.
Call = Callable[[str, str, Forwarded], Pieces]

#: Replicas that are lost one after the other, after which a request is given up.
_TRIES = 5
#: Before the second try, doubled for each further one: until the router knows of the loss.
_PAUSE_S = 0.1
_NAMES_KEPT = 100_000
_LOST = "the replica that worked on this has ended"


@dataclass(frozen=True)
class Answer:
    """An answer that has begun."""

    head: Head
    pieces: Pieces
    path: str

    async def body(self) -> AsyncGenerator[bytes]:
        """Yield the body; a stream of events that is cut off ends with an error event.

        Raises:
            ReplicaLost: a body of another kind is cut off.
        """
        yield self.head.body
        try:
            async for piece in self.pieces:
                assert isinstance(piece, bytes)
                yield piece
        except ReplicaLost:
            if not self.head.is_stream:
                raise
            yield last_event(self.path)
        finally:
            await self.pieces.aclose()


def last_event(path: str) -> bytes:
    """Return what ends a stream of events that was cut off, as the stream of that path ends."""
    body = body_of(InternalError(f"{_LOST}; the answer is incomplete, ask again"))
    if path.endswith("/responses"):
        line = json.dumps({"type": "error", **body["error"]})
        return f"event: error\ndata: {line}\n\n".encode()
    return f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n".encode()


class Forwarding:
    """Finds the base of each request.

    Args:
        bases: their names; the first one takes what names none.
        call: asks a replica of a base.
    """

    def __init__(self, bases: Sequence[str], call: Call) -> None:
        self._bases, self._call = tuple(bases), call
        self._base_of: OrderedDict[str, str] = OrderedDict()  # adapters that were answered

    async def answer(self, asked: Asked, request: Forwarded) -> Answer:
        """Return the answer once it has begun.

        Raises:
            AdapterNotFound: the base that the header names is not served.
            InternalError: the replica was lost, and the request may have changed something.
            NotReady: one replica after the other was lost.
            Overloaded: too many requests wait.
        """
        answer = None
        for base in self._candidates(asked):
            if answer is not None:
                await answer.pieces.aclose()
            answer = await self._begin(base, asked, request)
            if not _is_of_another_base(answer.head):
                self._remember(asked, base)
                break
        assert answer is not None
        return answer

    def first_base(self, asked: Asked) -> str:
        """Return the base that is asked first.

        Raises:
            AdapterNotFound: the base that the header names is not served.
        """
        return next(self._candidates(asked))

    def _candidates(self, asked: Asked) -> Iterator[str]:
        """Yield the bases to ask, one after the other while an adapter is another base's."""
        if asked.base is not None:
            if asked.base not in self._bases:
                known = ", ".join(self._bases)
                raise AdapterNotFound(f"there is no base {asked.base!r} here; there are: {known}")
            yield asked.base
        elif asked.model is not None and asked.model in self._bases:
            yield asked.model
        else:
            first = self._base_of.get(asked.model or "", self._bases[0])
            yield first
            if asked.model is not None and asked.is_repeatable:
                yield from (other for other in self._bases if other != first)

    def _remember(self, asked: Asked, base: str) -> None:
        if asked.model is not None and asked.base is None and len(self._bases) > 1:
            self._base_of[asked.model] = base
            self._base_of.move_to_end(asked.model)
            while len(self._base_of) > _NAMES_KEPT:
                self._base_of.popitem(last=False)

    async def _begin(self, base: str, asked: Asked, request: Forwarded) -> Answer:
        key = "" if asked.model is None or asked.model == base else asked.model
        for number in range(_TRIES):
            pieces = self._call(base, key, request)
            try:
                head = await anext(pieces)
            except ReplicaLost as error:
                await pieces.aclose()
                if not asked.is_repeatable or request.rest is not None:
                    raise InternalError(
                        f"{_LOST}; whether it was done is not known: look before you ask again"
                    ) from error
                await asyncio.sleep(_PAUSE_S * 2**number)
                continue
            assert isinstance(head, Head)
            if head.is_whole:
                await anext(pieces, None)  # to its end: what is closed early is cancelled
            return Answer(head, pieces, request.target.partition("?")[0])
        raise NotReady(f"{_TRIES} replicas of {base!r} have ended one after the other; try again")


def _is_of_another_base(head: Head) -> bool:
    return head.status == 409 and head.is_whole and _code(head.body) == BaseMismatch.code


def _code(body: bytes) -> object:
    try:
        return json.loads(body)["error"]["code"]
    except (ValueError, LookupError, TypeError):
        return None
