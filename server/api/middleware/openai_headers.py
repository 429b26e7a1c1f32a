"""What OpenAI's API says of every answer: how long it took, and how much more may be asked."""

import math
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.rates.share import Standing
from server.scheduling.admission import Quota
from server.service import Service

Headers = list[tuple[bytes, bytes]]


class OpenAIHeaders:
    """Puts openai-processing-ms on answers below /v1, and x-ratelimit-… on those of the engine.

    The limits are those of the tenant. One without a limit of requests a minute has that of its
    queue, in sequences or inputs.

    Args:
        app: the application inside.
        paths: of the routes that the engine answers.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self._app, self._paths = app, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent_ms = round(1000 * (time.perf_counter() - started))
                own = [(b"openai-processing-ms", b"%d" % spent_ms), *self._limits(scope)]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _limits(self, scope: Scope) -> Headers:
        service: Service | None = scope["app"].state.service
        tenant = scope["state"].get("tenant")
        if service is None or tenant is None or scope["path"] not in self._paths:
            return []
        requests, tokens = service.meter.standings(tenant)
        queue = service.serving.worker.quota(tenant)
        return _standing(b"requests", requests or _of(queue)) + _standing(b"tokens", tokens)


def _of(queue: Quota) -> Standing:
    return Standing(queue.limit, queue.remaining, queue.reset_s)


def _standing(rate: bytes, standing: Standing | None) -> Headers:
    if standing is None:
        return []
    return [
        (b"x-ratelimit-limit-" + rate, b"%d" % standing.limit),
        (b"x-ratelimit-remaining-" + rate, b"%d" % standing.remaining),
        (b"x-ratelimit-reset-" + rate, duration(standing.reset_s).encode()),
    ]


def duration(seconds: float) -> str:
    """Return a time as OpenAI writes it: `12ms`, `8.64s`, `6m0s`, `1h0m0s`; rounded up to ms."""
    ms = math.ceil(1000 * seconds - 1e-6)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    text = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes_left}m{text}"
    return f"{minutes}m{text}" if minutes else text
