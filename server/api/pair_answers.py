"""From a checked body to the scores of pairs of texts. Needs no HTTP request."""

import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from server.api.answering import WholeAnswer
from server.api.callers import Caller
from server.api.encoding_answers import Encoded, encoded
from server.api.encoding_schemas import PairsRequest, RerankRequest, ScoreRequest
from server.encoding.pairs import Pairs, TextPair
from server.errors import InvalidRequest
from server.service import Service


async def reranked(service: Service, body: RerankRequest, caller: Caller) -> WholeAnswer:
    """Return documents in the order of their scores, the best first; equal ones as given.

    Raises:
        InvalidRequest: the base scores no pairs, or what answers has several labels.
        Exception: as `encoded` does.
    """
    texts = body.texts
    pairs = [
        TextPair(body.query, text, ("query", f"documents[{i}]")) for i, text in enumerate(texts)
    ]
    found, scores = await _scored(service, body, caller, pairs)
    ranks = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": scores[index]} for index in ranks[: body.top_n or None]
    ]
    if body.return_documents:
        results = [one | {"document": {"text": texts[one["index"]]}} for one in results]
    return found.answer({"id": "rerank-" + uuid.uuid4().hex, "results": results})


async def scored(service: Service, body: ScoreRequest, caller: Caller) -> WholeAnswer:
    """Return the scores of pairs in their order.

    Raises:
        Exception: as `reranked` does.
    """
    found, scores = await _scored(service, body, caller, _paired(body))
    data = [
        {"index": index, "object": "score", "score": score} for index, score in enumerate(scores)
    ]
    return found.listed(data, id="score-" + uuid.uuid4().hex, created=int(time.time()))


async def _scored(
    service: Service, body: PairsRequest, caller: Caller, given: Sequence[TextPair]
) -> tuple[Encoded, list[float]]:
    pairs = _pairs_of(service)
    found = await encoded(service, body, caller, partial(pairs.inputs, given, body.truncate))
    return found, pairs.scores(found.results, body.use_activation)


def _pairs_of(service: Service) -> Pairs:
    """Return how the base reads pairs.

    Raises:
        InvalidRequest: it does not; the message says why.
    """
    encoding = service.encoding
    if encoding.kind != "text classifier":
        raise service.wrong_base()
    if encoding.pairs is None:
        name = service.base.spec.name
        raise InvalidRequest(f"the base {name!r} scores no pairs: {encoding.no_pairs}", "model")
    return encoding.pairs


def _paired(body: ScoreRequest) -> list[TextPair]:
    """Return the pairs: one text with each of the others, or each with its own.

    Raises:
        InvalidRequest: the numbers of texts do not fit.
    """
    one, ones = _listed(body.text_1, "text_1")
    other, others = _listed(body.text_2, "text_2")
    if len(one) not in (1, len(other)):
        raise InvalidRequest(
            f"text_1 has {len(one)} texts and text_2 {len(other)}: give one text_1 for all, or as "
            "many as there are of text_2",
            "text_1",
        )
    if len(one) == 1:
        one, ones = one * len(other), ones * len(other)
    places = zip(ones, others, strict=True)
    return [TextPair(*texts) for texts in zip(one, other, places, strict=True)]


def _listed(given: str | list[str], field: str) -> tuple[list[str], list[str]]:
    """Return texts, and the path of each."""
    if isinstance(given, str):
        return [given], [field]
    return given, [f"{field}[{index}]" for index in range(len(given))]
