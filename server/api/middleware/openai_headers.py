"""What OpenAI's API says of every answer: how long it took, and how much more may be asked."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.scheduling.admission import Quota
from server.service import Service


class OpenAIHeaders:
    """Puts openai-processing-ms on answers below /v1, and x-ratelimit-… on those of the engine.

    The limits are those of the tenant's queue, in sequences or inputs: the only ones there are.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                spent_ms = round(1000 * (time.perf_counter() - started))
                own = [(b"openai-processing-ms", b"%d" % spent_ms), *_limits(scope)]
                message["headers"] = [*message.get("headers", []), *own]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _limits(scope: Scope) -> list[tuple[bytes, bytes]]:
    service: Service | None = scope["app"].state.service
    tenant = scope["state"].get("tenant")
    if service is None or tenant is None or not _is_inference(scope):
        return []
    quota: Quota = service.serving.worker.quota(tenant)
    return [
        (b"x-ratelimit-limit-requests", b"%d" % quota.limit),
        (b"x-ratelimit-remaining-requests", b"%d" % quota.remaining),
        (b"x-ratelimit-reset-requests", b"%ds" % quota.reset_s),
    ]


def _is_inference(scope: Scope) -> bool:
    return "inference" in (getattr(scope.get("route"), "tags", None) or ())
