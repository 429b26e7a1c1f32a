"""From logits to labels with scores, and the labels' names."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adapters_core.format.read import Adapter
from server.errors import InvalidRequest

MAX_LABEL_CHARS = 256


def labels_of_base(config: Any) -> tuple[str, ...]:
    """Return the labels of a classifier's config, in the order of its logits."""
    return tuple(str(config.id2label.get(i, f"LABEL_{i}")) for i in range(config.num_labels))


def names_of(
    num_labels: int, metadata: Mapping[str, Any], base_labels: Sequence[str]
) -> Sequence[str]:
    """Return the names of an answer's labels.

    The adapter's own (`metadata.labels`); else the base's, if there are as many; else `LABEL_0` …
    """
    own = metadata.get("labels")
    if isinstance(own, list) and len(own) == num_labels:
        return [str(label) for label in own]
    if len(base_labels) == num_labels:
        return base_labels
    return [f"LABEL_{i}" for i in range(num_labels)]


def with_labels(metadata: dict[str, Any], adapter: Adapter) -> dict[str, Any]:
    """Return an upload's metadata with the labels that its config names (`id2label`), if any.

    Raises:
        InvalidRequest: the metadata's own are not texts, or not as many as the head has.
    """
    if adapter.head is None:
        return metadata
    if "labels" not in metadata:
        return metadata | ({"labels": adapter.labels} if adapter.labels else {})
    _check_labels(metadata["labels"], adapter.head.num_labels)
    return metadata


def _check_labels(labels: Any, num_labels: int) -> None:
    good = isinstance(labels, list) and all(
        isinstance(label, str) and 0 < len(label) <= MAX_LABEL_CHARS for label in labels
    )
    if not good:
        raise InvalidRequest("metadata.labels is not a list of short texts", "metadata")
    if len(labels) != num_labels:
        raise InvalidRequest(
            f"metadata.labels names {len(labels)} labels; the head has {num_labels}", "metadata"
        )


def scores_of(logits: Tensor, problem: str | None) -> list[float]:
    """Return one score per label for logits `[labels]`.

    As in transformers' pipelines: sigmoid of each logit for several labels at once or only one, the
    logit itself for a regression, else softmax.
    """
    logits = logits.double()
    if problem == "regression":
        scores = logits
    elif problem == "multi_label_classification" or len(logits) == 1:
        scores = torch.sigmoid(logits)
    else:
        scores = torch.softmax(logits, 0)
    values: list[float] = scores.tolist()
    return values


def answer_of(logits: Tensor, problem: str | None, names: Sequence[str]) -> dict[str, Any]:
    """Return the best label with its score, and the scores of all labels in their order."""
    scores = scores_of(logits, problem)
    best = max(range(len(scores)), key=scores.__getitem__)
    return {
        "label": names[best],
        "score": scores[best],
        "scores": [{"label": n, "score": s} for n, s in zip(names, scores, strict=True)],
    }
