"""When a call is sent again, and after how long: one pure function, for both clients.

The server has said 429 or 503. A 429, and a 503 of a server that is starting or going down, mean
that nothing was done: any call may be sent again. After another 503 only calls are sent again that
can be repeated without harm: those that read, those that set something to a value, questions to a
model, and an upload, which gives the same version for the same bytes. A DELETE and a change under a
condition are not: what the first one has done would make the second one's answer an error.
"""

import random
from collections.abc import Callable

from ._requests import Call
from .errors import APIError, Draining, NotReady, Overloaded, Unavailable

MAX_RETRIES = 2
FIRST_S, GREATEST_S = 0.5, 8.0  # the pause doubles between these
#: A server that wants more patience is left alone: the error comes at once.
PATIENCE_S = 30.0

#: POSTs that are answers only, or that come to the same when they are sent twice.
REPEATABLE = frozenset(
    {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/compare",
        "/v1/classify",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/score",
        "/v1/evaluations",
        "/v1/adapters",
        "/tokenize",
        "/detokenize",
    }
)
_REPEATABLE_METHODS = frozenset({"GET", "PUT", "PATCH"})  # our PATCH says what holds afterwards


def pause_before_retry(
    call: Call, error: APIError, num_tried: int, draw: Callable[[], float] = random.random
) -> float | None:
    """Seconds to wait before the call is sent again; None: it is not.

    Args:
        call: that was answered by the error.
        error: the server's answer.
        num_tried: retries so far.
        draw: a number from 0 to 1: without it, callers that were refused together would come
            again together.
    """
    if not _may_repeat(call, error):
        return None
    if error.retry_after is not None:
        return error.retry_after * (1 + draw() / 4) if error.retry_after <= PATIENCE_S else None
    return float(min(GREATEST_S, FIRST_S * 2**num_tried) * (0.5 + draw() / 2))


def _may_repeat(call: Call, error: APIError) -> bool:
    if isinstance(error, Overloaded | NotReady | Draining):
        return True
    is_unavailable = isinstance(error, Unavailable) and error.status == 503
    return is_unavailable and _is_repeatable(call)


def _is_repeatable(call: Call) -> bool:
    if "If-Match" in (call.headers or {}):
        return False
    if call.method in _REPEATABLE_METHODS or call.url in REPEATABLE:
        return True
    return call.url.endswith("/warm")
