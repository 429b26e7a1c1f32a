"""POST /v1/classify and /v1/embeddings: bases that answer in one forward pass."""

from fastapi import APIRouter, Request, Response

from server.api.answering import WholeAnswer
from server.api.bodies.answers import Classification, Embeddings
from server.api.describe import ANSWERS, answer, describe
from server.api.encoding_answers import classified, embedded
from server.api.encoding_schemas import ClassifyRequest, EmbeddingsRequest
from server.api.json_answer import json_answer
from server.api.request import json_body, service_of, unless_gone

router = APIRouter(tags=["inference"])

_NAMED = ("X-Overtone-Adapter",)


@router.post(
    "/v1/classify",
    **describe(
        "createClassification",
        answer(Classification, headers=_NAMED),
        body=ClassifyRequest,
        errors=ANSWERS,
    ),
)
async def classify(request: Request) -> Response:
    """Say which label each text or image has."""
    body = await json_body(request, ClassifyRequest)
    work = classified(service_of(request), body, request.state.tenant)
    return await _response(await unless_gone(request, work))


@router.post(
    "/v1/embeddings",
    **describe(
        "createEmbedding",
        answer(Embeddings, headers=_NAMED),
        body=EmbeddingsRequest,
        errors=ANSWERS,
    ),
)
async def embeddings(request: Request) -> Response:
    """Return one vector per text."""
    body = await json_body(request, EmbeddingsRequest)
    work = embedded(service_of(request), body, request.state.tenant)
    return await _response(await unless_gone(request, work))


async def _response(found: WholeAnswer) -> Response:
    return await json_answer(found.body, {"X-Overtone-Adapter": found.answerer.header})
