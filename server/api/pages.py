"""Lists that are answered whole where no page is asked for, without being in memory whole."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse

#: Entries that are read at once: a few milliseconds of the registry's time, and of this process's,
#: in which the event loop waits for the interpreter.
_AT_ONCE = 200


@dataclass(frozen=True)
class Page:
    """Some entries of a list in their order.

    Args:
        data: the entries as they are answered.
        ids: of the first and of the last one; None where there is none.
        has_more: whether others come after them.
    """

    data: Sequence[Any]
    ids: tuple[str, str] | None
    has_more: bool

    def body(self) -> dict[str, Any]:
        """Return the page as an answer."""
        first, last = self.ids or (None, None)
        ends = {"has_more": self.has_more, "first_id": first, "last_id": last}
        return {"object": "list", "data": self.data, **ends}

    def inside(self) -> str:
        """Return the entries as the inside of a JSON list."""
        return json.dumps(self.data, ensure_ascii=False, separators=(",", ":"))[1:-1]


#: Reads the page of so many entries after an id; called on other threads.
Reader = Callable[[int, str | None], Page]


async def paged(read: Reader, limit: int | None, after: str | None) -> Response:
    """Return a page of `limit` entries after the id `after`; all of them if `limit` is None.

    Raises:
        Exception: what `read` raises for the first page; later ones break the connection, so that
            the list does not look whole.
    """
    page = await asyncio.to_thread(read, limit or _AT_ONCE, after)
    if limit is not None or not page.has_more:
        return JSONResponse(page.body())
    return StreamingResponse(_all(read, page), media_type="application/json")


async def _all(read: Reader, page: Page) -> AsyncIterator[str]:
    """Yield a whole list as JSON; no more than a page of it is in memory."""
    assert page.ids is not None
    first, last = page.ids
    yield f'{{"object":"list","data":[{await asyncio.to_thread(page.inside)}'
    while page.has_more:
        page = await asyncio.to_thread(read, _AT_ONCE, last)
        if page.ids is not None:  # None if the rest was deleted meanwhile
            _, last = page.ids
            yield f",{await asyncio.to_thread(page.inside)}"
    ends = {"has_more": False, "first_id": first, "last_id": last}
    yield f"],{json.dumps(ends, ensure_ascii=False)[1:]}"
