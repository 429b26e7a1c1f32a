"""POST /v1/rerank and /v1/score: pairs of texts, scored by a cross-encoder."""

from fastapi import APIRouter, Request, Response

from server.api.answerer import HEADER
from server.api.bodies.answers import Reranking, Scores
from server.api.describe import ANSWERS, INFER, answer, describe
from server.api.encoding_schemas import RerankRequest, ScoreRequest
from server.api.json_answer import json_answer
from server.api.pair_answers import reranked, scored
from server.api.request import json_body, service_of, unless_gone

router = APIRouter(tags=["inference"])


@router.post("/rerank", include_in_schema=False)  # where vLLM has it
@router.post("/v2/rerank", include_in_schema=False)  # where Cohere's newer clients look for it
@router.post(
    "/v1/rerank",
    **describe(
        "createReranking",
        answer(Reranking, headers=(HEADER,)),
        body=RerankRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def rerank(request: Request) -> Response:
    """Order documents by how well they answer a query, the best first."""
    body = await json_body(request, RerankRequest)
    work = reranked(service_of(request), body, request.state.caller)
    found = await unless_gone(request, work)
    return await json_answer(found.body, found.answerer.headers)


@router.post(
    "/v1/score",
    **describe(
        "createScore",
        answer(Scores, headers=(HEADER,)),
        body=ScoreRequest,
        errors=ANSWERS,
        scopes=INFER,
    ),
)
async def score(request: Request) -> Response:
    """Score pairs of texts."""
    body = await json_body(request, ScoreRequest)
    work = scored(service_of(request), body, request.state.caller)
    found = await unless_gone(request, work)
    return await json_answer(found.body, found.answerer.headers)
