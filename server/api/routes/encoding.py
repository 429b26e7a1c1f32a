"""POST /v1/classify and /v1/embeddings: bases that answer in one forward pass."""

from fastapi import APIRouter, Request, Response

from server.api.answerer import HEADER
from server.api.bodies.answers import Classification, Embeddings
from server.api.describe import ANSWERS, INFER, answer, describe
from server.api.encoding_answers import classified, embedded
from server.api.encoding_schemas import ClassifyRequest, EmbeddingsRequest
from server.api.json_answer import json_answer
from server.api.request import json_body, service_of, unless_gone

router = APIRouter(tags=["inference"])


@router.post(
    "/v1/classify",
    **describe(
        "createClassification",
        answer(Classification, headers=(HEADER,)),
        body=ClassifyRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def classify(request: Request) -> Response:
    """Say which label each text or image has."""
    body = await json_body(request, ClassifyRequest)
    work = classified(service_of(request), body, request.state.caller)
    found = await unless_gone(request, work)
    return await json_answer(found.body, found.answerer.headers)


@router.post(
    "/v1/embeddings",
    **describe(
        "createEmbedding",
        answer(Embeddings, headers=(HEADER,)),
        body=EmbeddingsRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def embeddings(request: Request) -> Response:
    """Return one vector per text."""
    body = await json_body(request, EmbeddingsRequest)
    work = embedded(service_of(request), body, request.state.caller)
    found = await unless_gone(request, work)
    return await json_answer(found.body, found.answerer.headers)
