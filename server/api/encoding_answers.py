"""From a checked body to the answer of a base that answers in one pass. Needs no HTTP request.

Cancelling either function gives up what is not computed yet.
"""

import asyncio
import base64
import uuid
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from server.api.answerer import Answerer, resolve
from server.api.answering import WholeAnswer
from server.api.encoding_schemas import ClassifyRequest, EmbeddingsRequest, EncodingRequest
from server.encoding.build import Encoding
from server.encoding.encoder import Input
from server.encoding.labels import answer_of, names_of
from server.encoding.request import PendingRequest
from server.errors import InvalidRequest
from server.service import Service


@dataclass(frozen=True)
class _Encoded:
    """A request's results with what an answer says of itself."""

    answerer: Answerer
    inputs: list[Input]
    results: list[Tensor]
    mode: str | None

    def answer(self, data: list[dict[str, Any]], **extra: Any) -> WholeAnswer:
        tokens = sum(len(given) for given in self.inputs if isinstance(given, tuple))
        body = {
            **extra,
            "object": "list",
            "model": self.answerer.model,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "overtone": self.answerer.body(self.mode),
        }
        return WholeAnswer(self.answerer, body)


async def classified(service: Service, body: ClassifyRequest, tenant: str) -> WholeAnswer:
    """Return which label each text or image has.

    Raises:
        AdapterNotFound, RegistryUnavailable, BaseMismatch: as `resolve` does.
        InvalidRequest: the base is no classifier, or an input is none for it.
        Exception: what made the request fail.
    """
    encoding = service.encoding
    if encoding.kind == "embedder":
        raise service.wrong_base()
    encoded = await _encoded(service, encoding, body, tenant)
    record = encoded.answerer.record
    metadata = record.metadata if record else {}
    data = [
        {"index": number}
        | answer_of(row, encoding.problem, names_of(len(row), metadata, encoding.labels))
        for number, row in enumerate(encoded.results)
    ]
    return encoded.answer(data, id="classify-" + uuid.uuid4().hex)


async def embedded(service: Service, body: EmbeddingsRequest, tenant: str) -> WholeAnswer:
    """Return one vector per text.

    Raises:
        Exception: as `classified` does.
    """
    encoding = service.encoding
    if encoding.kind != "embedder":
        raise service.wrong_base()
    width = service.base.model.config.hidden_size  # type: ignore[union-attr]
    if body.dimensions not in (None, width):
        raise InvalidRequest(
            f"dimensions = {body.dimensions}; this base's vectors have {width}", "dimensions"
        )
    encoded = await _encoded(service, encoding, body, tenant)
    vectors = await asyncio.to_thread(
        lambda: [_written(row, body.encoding_format) for row in encoded.results]
    )
    data = [
        {"object": "embedding", "index": number, "embedding": vector}
        for number, vector in enumerate(vectors)
    ]
    return encoded.answer(data)


async def _encoded(
    service: Service, encoding: Encoding, body: EncodingRequest, tenant: str
) -> _Encoded:
    """Resolve the name, make inputs, and wait for results."""
    answerer = await asyncio.to_thread(resolve, service, body.model)
    if answerer.record is None and encoding.kind != "embedder" and not encoding.has_own_head:
        raise InvalidRequest(
            f"the base {answerer.base_name!r} has no trained head of its own; name an adapter",
            "model",
        )
    prompt_name = body.prompt_name if isinstance(body, EmbeddingsRequest) else None
    inputs = await asyncio.to_thread(encoding.inputs, body.inputs, body.truncate, prompt_name)
    timeout_s = body.timeout_s or service.settings.request_timeout_s
    record = answerer.record
    goes_alone = record is not None and encoding.goes_alone(record.description.target_modules)
    pending = encoding.batcher.submit(inputs, answerer.digest, tenant, timeout_s, goes_alone)
    if answerer.record is not None:
        service.metrics.on_adapter(answerer.record.name)
    try:
        results = await _results(pending)
    finally:
        encoding.batcher.cancel(pending)
    return _Encoded(answerer, inputs, results, pending.mode)


async def _results(pending: PendingRequest) -> list[Tensor]:
    return await asyncio.wrap_future(pending.future)


def _written(vector: Tensor, encoding_format: str) -> str | list[float]:
    if encoding_format == "float":
        values: list[float] = vector.tolist()
        return values
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
