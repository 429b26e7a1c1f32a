"""POST /v1/classify and /v1/embeddings: bases that answer in one forward pass."""

import asyncio
import base64
import uuid
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from server.api.answerer import Answerer, resolve
from server.api.bodies.answers import Classification, Embeddings
from server.api.describe import ANSWERS, answer, describe
from server.api.encoding_schemas import ClassifyRequest, EmbeddingsRequest, EncodingRequest
from server.api.request import json_body, service_of, unless_gone
from server.encoding.build import Encoding
from server.encoding.encoder import Input
from server.encoding.labels import answer_of, names_of
from server.encoding.request import PendingRequest
from server.errors import InvalidRequest

router = APIRouter(tags=["inference"])

_NAMED = ("X-Overtone-Adapter",)


@dataclass(frozen=True)
class _Answered:
    """A request's results with what an answer says of itself."""

    answerer: Answerer
    inputs: list[Input]
    results: list[Tensor]
    mode: str | None

    def response(self, data: list[dict[str, Any]], **extra: Any) -> Response:
        tokens = sum(len(given) for given in self.inputs if isinstance(given, tuple))
        body = {
            **extra,
            "object": "list",
            "model": self.answerer.model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "overtone": self.answerer.body(self.mode),
        }
        return JSONResponse(body, headers={"X-Overtone-Adapter": self.answerer.header})


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
    service = service_of(request)
    encoding = service.encoding
    if encoding.kind == "embedder":
        raise service.wrong_base()
    answered = await _answered(request, encoding, body)
    record = answered.answerer.record
    metadata = record.metadata if record else {}
    data = [
        {"index": number}
        | answer_of(row, encoding.problem, names_of(len(row), metadata, encoding.labels))
        for number, row in enumerate(answered.results)
    ]
    return answered.response(data, id="classify-" + uuid.uuid4().hex)


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
    service = service_of(request)
    encoding = service.encoding
    if encoding.kind != "embedder":
        raise service.wrong_base()
    width = service.base.model.config.hidden_size  # type: ignore[union-attr]
    if body.dimensions not in (None, width):
        raise InvalidRequest(
            f"dimensions = {body.dimensions}; this base's vectors have {width}", "dimensions"
        )
    answered = await _answered(request, encoding, body)
    vectors = await asyncio.to_thread(
        lambda: [_written(row, body.encoding_format) for row in answered.results]
    )
    data = [
        {"object": "embedding", "index": number, "embedding": vector}
        for number, vector in enumerate(vectors)
    ]
    return answered.response(data)


async def _answered(request: Request, encoding: Encoding, body: EncodingRequest) -> _Answered:
    """Resolve the name, make inputs, and wait for results or until the connection is closed."""
    service = service_of(request)
    answerer = await asyncio.to_thread(resolve, service, body.model)
    if answerer.record is None and encoding.kind != "embedder" and not encoding.has_own_head:
        raise InvalidRequest(
            f"the base {answerer.base_name!r} has no trained head of its own; name an adapter",
            "model",
        )
    prompt_name = body.prompt_name if isinstance(body, EmbeddingsRequest) else None
    inputs = await asyncio.to_thread(encoding.inputs, body.inputs, body.truncate, prompt_name)
    timeout_s = body.timeout_s or service.settings.request_timeout_s
    tenant = request.state.tenant
    record = answerer.record
    goes_alone = record is not None and encoding.goes_alone(record.description.target_modules)
    pending = encoding.batcher.submit(inputs, answerer.digest, tenant, timeout_s, goes_alone)
    if answerer.record is not None:
        service.metrics.on_adapter(answerer.record.name)
    try:
        results = await unless_gone(request, _results(pending))
    finally:
        encoding.batcher.cancel(pending)
    return _Answered(answerer, inputs, results, pending.mode)


async def _results(pending: PendingRequest) -> list[Tensor]:
    return await asyncio.wrap_future(pending.future)


def _written(vector: Tensor, encoding_format: str) -> str | list[float]:
    if encoding_format == "float":
        values: list[float] = vector.tolist()
        return values
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
