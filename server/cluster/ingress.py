"""The ingress: keeps the REST API, and has a replica of the right base answer each request."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from server.cluster.asked import Asked, asked
from server.cluster.forwarding import Answer, Forwarding
from server.cluster.messages import Forwarded, Head, ReplicaLost, of_request
from server.cluster.request_body import Body, received
from server.cluster.scrape import scraped
from server.errors import FAMILIES, NotReady, Overloaded, body_of, headers_of, status_of


class Ingress:
    """Takes what Ray Serve's proxy has received.

    Args:
        bases: name -> the deployment of its replicas; the first takes what names no base.
        affinity: whether an adapter's requests go to replicas that had it before.
        workers: deployments that train, which are never asked.
    """

    def __init__(
        self,
        bases: Mapping[str, DeploymentHandle],
        affinity: bool,
        workers: Sequence[DeploymentHandle],
    ) -> None:
        self._bases, self._affinity = dict(bases), affinity
        self._forwarding = Forwarding(list(bases), self._call)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        async with received(request) as body:
            forwarded = _forwarded(request, body)
            path = forwarded.target.partition("?")[0]
            wanted = asked(request.method, path, forwarded.headers, body.first)
            try:
                if path == "/metrics":
                    return await self._metrics(wanted, forwarded)
                return _response(await self._forwarding.answer(wanted, forwarded))
            except FAMILIES as error:
                return JSONResponse(body_of(error), status_of(error), headers=headers_of(error))

    async def _metrics(self, wanted: Asked, request: Forwarded) -> Response:
        base = self._forwarding.first_base(wanted)
        return await scraped(self._bases[base], request.headers)

    async def _call(self, base: str, key: str, request: Forwarded) -> AsyncGenerator[Head | bytes]:
        """Have a replica answer; closing this early cancels its work.

        Raises:
            ReplicaLost: it has ended.
            NotReady: the base cannot be loaded.
            Overloaded: all replicas and the queue in front of them are full.
        """
        handle = self._bases[base].options(method_name="answer", stream=True)
        if key and self._affinity:
            handle = handle.options(multiplexed_model_id=key)
        pieces: Any = handle.remote(request)
        is_over = False
        try:
            async for piece in pieces:
                yield piece
            is_over = True
        except Exception as error:
            is_over = True
            raise _ours(error, base) from error
        finally:
            if not is_over:
                pieces.cancel()  # of one that is over, it would reach what that has left behind


def _ours(error: Exception, base: str) -> Exception:
    """Return what an exception of Ray's means here."""
    if isinstance(error, RayActorError):
        return ReplicaLost(str(error))
    if isinstance(error, BackPressureError):
        return Overloaded(f"the queue of {base!r} is full; try again later")
    if isinstance(error, DeploymentUnavailableError):
        return NotReady(f"the base {base!r} cannot be loaded: {error.message}")
    return error


def _forwarded(request: Request, body: Body) -> Forwarded:
    """Return a request as it goes on, below the path of Ray Serve's application."""
    prefix = request.scope.get("root_path", "")
    path = request.scope["raw_path"].decode("ascii").removeprefix(prefix)
    query = request.scope["query_string"].decode("ascii")
    target = f"{path}?{query}" if query else path
    headers = of_request(request.headers.raw)
    return Forwarded(request.method, target, headers, body.first, body.rest)


def _response(answer: Answer) -> Response:
    """Return the answer in starlette's form, its headers as the replica sent them."""
    if answer.head.is_whole:
        response = Response(answer.head.body, answer.head.status)
    else:
        response = StreamingResponse(answer.body(), answer.head.status)
    response.raw_headers = list(answer.head.headers)
    return response
