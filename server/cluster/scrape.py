"""GET /metrics of a base: those of all its replicas."""

from ray.serve.handle import DeploymentHandle
from starlette.responses import Response

from server.cluster.messages import Head, RawHeaders
from server.telemetry.merged import merged


async def scraped(replicas: DeploymentHandle, headers: RawHeaders) -> Response:
    """Return the metrics of all replicas, or the first answer of one that gives none.

    Args:
        replicas: a deployment of `Replica`.
        headers: of the request, which may have to have a key.
    """
    answers = await replicas.broadcast("metrics", headers).results_async()
    told: list[tuple[str, Head]] = list(answers)
    for _, head in told:
        if head.status != 200:
            return _response(head)
    body, media_type = merged({name: head.body.decode() for name, head in told})
    return Response(body, media_type=media_type)


def _response(head: Head) -> Response:
    response = Response(head.body, head.status)
    response.raw_headers = list(head.headers)
    return response
