"""Builds what a classifier or an embedder needs beside what every base has."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from adapters_core.layers.inject import Injection
from server.adapters.loader import Loader
from server.base.kinds import Kind
from server.base.loading import Base
from server.encoding.batcher import Batcher
from server.encoding.check import UnsupportedBase, check_encoder, check_pairs
from server.encoding.encoder import Encoder, Input
from server.encoding.head_switch import switch_heads
from server.encoding.images import Images
from server.encoding.labels import labels_of_base
from server.encoding.pairs import NoPairs, Pairs
from server.encoding.request import MAX_IMAGES, Limits
from server.encoding.texts import Texts
from server.errors import InvalidRequest
from server.telemetry.observer import Observer

_LOG = logging.getLogger("overtone")


@dataclass(frozen=True)
class Encoding:
    """The batcher, with the readers of its inputs and the meaning of its results.

    Args:
        encoder: what computes a batch.
        labels: of the base's own head; empty for an embedder.
        problem: of the base's config: what its logits mean.
        has_own_head: whether the base itself can classify.
        pairs: of a text classifier: how it reads two texts at once.
        no_pairs: why there are none.
        shared: targets that see what all inputs of a batch share.
    """

    encoder: Encoder
    batcher: Batcher
    kind: Kind
    texts: Texts | None
    images: Images | None
    labels: Sequence[str]
    problem: str | None
    has_own_head: bool
    shared: frozenset[str] = frozenset()
    pairs: Pairs | None = None
    no_pairs: str = ""

    def goes_alone(self, targets: Iterable[str]) -> bool:
        """Return whether an adapter of these layers has batches of its own."""
        return not self.shared.isdisjoint(targets)

    @property
    def worker(self) -> Batcher:
        """Return what computes."""
        return self.batcher

    def inputs(
        self, given: Sequence[str | list[int]], truncate: bool, prompt_name: str | None = None
    ) -> list[Input]:
        """Return the base's inputs; takes long for images.

        Raises:
            InvalidRequest, PromptTooLong, PayloadTooLarge: an input cannot be read.
        """
        if self.texts is not None:
            prompt = self.texts.preparation.prompt(prompt_name)
            if prompt_name is not None and any(not isinstance(one, str) for one in given):
                raise InvalidRequest("a prompt stands before texts, not token ids", "prompt_name")
            return [self.texts.tokens(one, truncate, prompt) for one in given]
        assert self.images is not None
        if len(given) > MAX_IMAGES:
            raise InvalidRequest(f"{len(given)} images; at most {MAX_IMAGES} a request", "input")
        urls = [one for one in given if isinstance(one, str)]
        if len(urls) < len(given):
            raise InvalidRequest("this base reads images, not token ids", "input")
        return [self.images.pixels(url) for url in urls]


def encoding_of(
    base: Base,
    injection: Injection,
    forms: Mapping[str, nn.Module],
    loader: Loader,
    observer: Observer,
    limits: Limits,
) -> Encoding:
    """Return what serves `base`; its batcher is not started.

    Args:
        base: a classifier or an embedder.
        injection: of it.
        forms: its head's modules as they were before (`heads.plain_heads`).
        loader: of its adapters.
        observer: receives the statistics of every batch.
        limits: how much at once.

    Raises:
        UnsupportedBase: this encoder gives other answers than transformers' own forward pass.
    """
    config: Any = base.model.config
    head = base.spec.head
    switch = switch_heads(injection, forms) if forms else None
    pad_id = getattr(config, "pad_token_id", None) or 0
    num_labels = head.num_labels if head else 0
    shared, pads = base.spec.shared, base.spec.pads
    encoder = Encoder(injection, switch, num_labels, pad_id, base.pooling, shared)
    check_encoder(encoder, injection, base)
    pairs, no_pairs = _pairs(encoder, injection, base)
    batcher = Batcher(encoder, loader, observer, limits, base.max_length, pads=pads)
    reads_images = base.kind == "image classifier"
    return Encoding(
        encoder=encoder,
        batcher=batcher,
        kind=base.kind,
        texts=None if reads_images else _texts(base),
        images=Images(base.images, limits.max_pixels) if reads_images else None,
        labels=labels_of_base(config) if head else (),
        problem=config.problem_type if head else None,
        has_own_head=head is not None and not head.untrained,
        shared=shared,
        pairs=pairs,
        no_pairs=no_pairs,
    )


def _pairs(encoder: Encoder, injection: Injection, base: Base) -> tuple[Pairs | None, str]:
    """Return how a base reads pairs of texts, or why it does not."""
    if base.kind != "text classifier":
        return None, ""
    try:
        pairs = Pairs.of(injection.model, base.tokenizer, base.max_length)
        if pairs.has_types:
            check_pairs(encoder, injection, base, pairs)
        return pairs, ""
    except (NoPairs, UnsupportedBase) as error:
        _LOG.info("pairs of texts are not scored: %s", error)
        return None, str(error)


def _texts(base: Base) -> Texts:
    preparation = base.pooling.preparation if base.pooling else None
    return Texts(base.tokenizer, base.vocabulary, base.max_length, preparation)
