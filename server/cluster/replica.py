"""A replica: a plain server in a process of its own, and the actor that asks it."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

from ray import serve

from server.cluster.messages import Forwarded, Head, RawHeaders, ReplicaLost
from server.cluster.plain_server import PlainServer
from server.cluster.queue_time import QUEUE_S, QueueTime
from server.cluster.server_client import ServerClient
from server.settings import read_settings

_LOG = logging.getLogger("overtone")
#: Adapters that a replica says it has; those unused for longest are forgotten first.
MAX_KNOWN = 1024
#: The key with which a replica reads its server's metrics, where the server asks for keys.
METRICS_KEY = "OVERTONE_METRICS_KEY"
#: No adapter's name.
_NO_ADAPTER = "-"
_TIMEOUT_S = 10.0


class Replica:
    """Answers requests of one base.

    Args:
        settings: of its server, those that are not in the environment.
    """

    _server: PlainServer | None = None

    def __init__(self, settings: dict[str, Any]) -> None:
        self._server = PlainServer(settings, read_settings(**settings).grace_s, on_end=_end)
        self._server.wait_until_ready()
        self._client = ServerClient(self._server.url)
        self._queue_time = QueueTime()
        # Ray Serve has the first call tell routers of all later ones: were it a request's, it would
        # end with one that is cancelled.
        self._telling = asyncio.get_running_loop().create_task(self.known(_NO_ADAPTER))

    async def answer(self, request: Forwarded) -> AsyncGenerator[Head | bytes]:
        """Yield the server's answer: its head, then its bytes.

        Raises:
            ReplicaLost: the server has ended.
        """
        async for piece in self._client.answer(request):
            if isinstance(piece, Head) and piece.status < 400:
                await self._note()
            yield piece

    async def metrics(self, headers: RawHeaders) -> tuple[str, Head]:
        """Return this replica's name, and its server's answer to GET /metrics with such headers."""
        asked = Forwarded("GET", "/metrics", headers, b"")
        name = serve.get_replica_context().replica_id.unique_id
        return name, await self._client.whole(asked, _TIMEOUT_S)

    async def check_health(self) -> None:
        """Raise an exception if the server does not answer."""
        head = await self._client.whole(Forwarded("GET", "/health/live", (), b""), _TIMEOUT_S)
        if head.status != 200:
            raise ReplicaLost(f"/health/live answers {head.status}")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return how long requests wait in this replica, for the scaling policy."""
        key = os.environ.get(METRICS_KEY)
        sent = ((b"authorization", f"Bearer {key}".encode()),) if key else ()
        _, head = await self.metrics(sent)
        if head.status != 200:
            _LOG.warning("/metrics answers %d: set %s to a key for it", head.status, METRICS_KEY)
            return {}
        return {QUEUE_S: self._queue_time.take(head.body.decode(), time.monotonic())}

    @serve.multiplexed(max_num_models_per_replica=MAX_KNOWN)
    async def known(self, adapter: str) -> str:
        """Have routers know that this replica has an adapter; the server itself holds it."""
        return adapter

    async def _note(self) -> None:
        adapter = serve.get_multiplexed_model_id()
        if adapter:
            await self.known(adapter)

    def __del__(self) -> None:
        if self._server is not None:
            self._server.close()


def _end(code: int) -> None:
    """End this actor with its server: Ray Serve starts another one."""
    os._exit(1)
