"""From a checked body to the answer of a base that answers in one pass. Needs no HTTP request.

Cancelling a function gives up what is not computed yet.
"""

import asyncio
import base64
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from server.api.answerer import Answerer, resolve
from server.api.answering import WholeAnswer
from server.api.callers import Caller
from server.api.encoding_schemas import ClassifyRequest, EmbeddingsRequest, EncodingRequest
from server.api.json_answer import beside
from server.encoding.encoder import Input, num_tokens
from server.encoding.labels import answer_of, names_of
from server.encoding.request import PendingRequest
from server.errors import InvalidRequest
from server.service import Service
from server.telemetry.activity import AcceptedStats


@dataclass(frozen=True)
class Encoded:
    """A request's results with what an answer says of itself."""

    answerer: Answerer
    inputs: list[Input]
    results: list[Tensor]
    mode: str | None

    def listed(self, data: list[dict[str, Any]], **extra: Any) -> WholeAnswer:
        """Return the answer with a list of what was found for the inputs."""
        return self.answer({**extra, "object": "list", "data": data})

    def answer(self, body: dict[str, Any]) -> WholeAnswer:
        """Return the answer with `model`, `usage` and `overtone` added."""
        tokens = sum(map(num_tokens, self.inputs))
        about = {
            "model": self.answerer.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "overtone": self.answerer.body(self.mode),
        }
        return WholeAnswer(self.answerer, body | about)


async def classified(
    service: Service, body: ClassifyRequest, caller: Caller, is_background: bool = False
) -> WholeAnswer:
    """Return which label each text or image has.

    Raises:
        AdapterNotFound, RegistryUnavailable, BaseMismatch: as `resolve` does.
        InvalidRequest: the base is no classifier, or an input is none for it.
        Exception: what made the request fail.
    """
    encoding = service.encoding
    if encoding.kind == "embedder":
        raise service.wrong_base()
    read = partial(encoding.inputs, body.inputs, body.truncate)
    found = await encoded(service, body, caller, read, is_background)
    record = found.answerer.record
    num_labels = len(found.results[0])
    names = names_of(num_labels, record.metadata if record else {}, encoding.labels)

    def labelled() -> list[dict[str, Any]]:
        rows = enumerate(found.results)
        return [{"index": number} | answer_of(row, encoding.problem, names) for number, row in rows]

    data = await beside(3 * num_labels * len(found.results), labelled)
    return found.listed(data, id="classify-" + uuid.uuid4().hex)


async def embedded(
    service: Service, body: EmbeddingsRequest, caller: Caller, is_background: bool = False
) -> WholeAnswer:
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
    read = partial(encoding.inputs, body.inputs, body.truncate, body.prompt_name)
    found = await encoded(service, body, caller, read, is_background)
    vectors = await asyncio.to_thread(
        lambda: [_written(row, body.encoding_format) for row in found.results]
    )
    data = [
        {"object": "embedding", "index": number, "embedding": vector}
        for number, vector in enumerate(vectors)
    ]
    return found.listed(data)


async def encoded(
    service: Service,
    body: EncodingRequest,
    caller: Caller,
    read: Callable[[], list[Input]],
    is_background: bool = False,
) -> Encoded:
    """Resolve the name, make inputs, and wait for results.

    Args:
        service: of a base that answers in one pass.
        body: names the model.
        caller: that the request counts for.
        read: makes the inputs; called on another thread.
        is_background: a batch's: it waits while anything else is ready.

    Raises:
        InvalidRequest: the base itself is asked and has no head; or what `read` raises.
        RateLimited: the tenant has used as many tokens as it may.
        Exception: what made the request fail.
    """
    encoding = service.encoding
    answerer = await asyncio.to_thread(resolve, service, body.model, caller.space)
    if answerer.record is None and encoding.kind != "embedder" and not encoding.has_own_head:
        raise InvalidRequest(
            f"the base {answerer.base_name!r} has no trained head of its own; name an adapter",
            "model",
        )
    num_chars = 0 if encoding.texts is None else body.num_chars
    inputs = await service.tokenizing.run(num_chars, read)
    if not is_background:
        await service.meter.take_tokens(caller.tenant, sum(map(num_tokens, inputs)))
    usual_s = None if is_background else service.settings.request_timeout_s
    timeout_s = body.timeout_s or usual_s
    record = answerer.record
    goes_alone = record is not None and encoding.goes_alone(record.description.target_modules)
    pending = encoding.batcher.submit(
        inputs, answerer.digest, caller.tenant, timeout_s, goes_alone, is_background
    )
    if answerer.record is not None:
        service.metrics.on_adapter(answerer.record.name)
    began, count = time.monotonic(), sum(map(num_tokens, inputs))
    stats = AcceptedStats(answerer.adapter, answerer.digest or "", pending.mode, count)
    service.metrics.on_accepted(stats)
    try:
        results = await _results(pending)
        service.metrics.activity.on_first_token(answerer.adapter, time.monotonic() - began)
    finally:
        encoding.batcher.cancel(pending)
    return Encoded(answerer, inputs, results, pending.mode)


async def _results(pending: PendingRequest) -> list[Tensor]:
    return await asyncio.wrap_future(pending.future)


def _written(vector: Tensor, encoding_format: str) -> str | list[float]:
    if encoding_format == "float":
        values: list[float] = vector.tolist()
        return values
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()
