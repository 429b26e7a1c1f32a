"""Compares an encoder with transformers' own forward pass at every start.

Inputs of several lengths share batches, each with one of two random adapters on every target, or
with the base alone. Each answer must be transformers' for that input alone, without padding, where
hooks add the adapter's update to every linear: none of the encoder's own code is used for it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from adapters_core.base.encoder_probe import Texts, agree, answers_of, image_inputs
from adapters_core.layers.bank import Bank
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection
from server.adapters.probe_updates import Updates, added, layout_of, packed, random_updates
from server.base.loading import Base
from server.encoding.encoder import Encoder, Group, Input, TypedText, group_of
from server.encoding.pairs import Pairs, TextPair
from server.encoding.plan import Payload

#: Norm of an update, as a share of its linear's: larger than rounding.
_SIZE = 0.2
_LENGTHS = (3, 9, 14, 9, 14, 30, 30)


class UnsupportedBase(Exception):
    """The base computes something that the encoder does not."""


@torch.inference_mode()
def check_encoder(encoder: Encoder, injection: Injection, base: Base) -> None:
    """Compare answers for mixed batches with transformers' own for each input alone.

    Raises:
        UnsupportedBase: they differ, or the base cannot be run so; the message says which.
    """
    with _named_faults(base):
        made = _Made(injection, base)
        made.compare_all(encoder, _inputs(base))


@torch.inference_mode()
def check_pairs(encoder: Encoder, injection: Injection, base: Base, pairs: Pairs) -> None:
    """Compare answers for pairs whose tokens have types, likewise.

    Raises:
        UnsupportedBase: they differ, or the base cannot be run so; the message says which.
    """
    texts = [(1, 3), (4, 1), (2, 9), (9, 2), (1, 1), (12, 12)]
    with _named_faults(base):
        words = [TextPair("a " * one, "a " * other, ("", "")) for one, other in texts]
        inputs = pairs.inputs(words, truncate=True)
        _Made(injection, base).compare_all(encoder, inputs)


@contextmanager
def _named_faults(base: Base) -> Iterator[None]:
    try:
        yield
    except UnsupportedBase:
        raise
    except Exception as error:  # whatever a model raises
        raise UnsupportedBase(
            f"{type(base.model).__name__} is not served: with adapters it cannot be run "
            f"({type(error).__name__}: {str(error)[:300]})"
        ) from error


class _Made:
    """Two adapters on targets that batches may mix, and one on all targets."""

    def __init__(self, injection: Injection, base: Base) -> None:
        self._injection, self._base = injection, base
        usual, device = base.spec.usual, next(base.model.parameters()).device
        shapes = base.spec.targets
        bank = Bank(layout_of(usual, shapes), BasisCache(device), 2)
        whole = Bank(layout_of(shapes, shapes), BasisCache(device), 1)
        self._updates: dict[str, Updates] = {}
        self._payloads: dict[str | None, Payload] = {None: None}
        for seed, (name, where) in enumerate((("one", bank), ("other", bank), ("all", whole))):
            updates = random_updates(injection.linears, where.layout.parts, seed, _SIZE)
            self._updates[name], self._payloads[name] = updates, packed(where, updates)

    def compare_all(self, encoder: Encoder, inputs: Sequence[Input]) -> None:
        """Compare the answers for inputs in batches of their groups."""
        mixed: list[str | None] = ["one", "other", None]
        for group, batch in _batches(self._base, inputs, None):
            self._compare(encoder, group, batch, [mixed[i % 3] for i in range(len(batch))])
        if self._base.spec.shared:
            for group, batch in _batches(self._base, inputs, "all"):
                self._compare(encoder, group, batch, ["all"] * len(batch))

    def _compare(
        self, encoder: Encoder, group: Group, batch: Sequence[Input], names: Sequence[str | None]
    ) -> None:
        """Compare a batch's answers with those of each input alone."""
        got = encoder.run(batch, group, [self._payloads[name] for name in names])
        for row, given, name in zip(got, batch, names, strict=True):
            want = self._reference(given, name)
            if not agree(row.to(want.dtype), want):
                raise UnsupportedBase(self._message(row, want, given, name, len(batch)))

    def _reference(self, given: Input, name: str | None) -> Tensor:
        """Return transformers' own answer for one input, without padding."""
        model = self._base.model
        first = next(model.parameters())
        inputs = {"pixel_values": given[None].to(first)} if isinstance(given, Tensor) else None
        if inputs is None:
            inputs = _alone(given, first.device)
        with added(self._injection.linears, self._updates.get(name or "", {})):
            answers = answers_of(model, inputs)
        if self._base.pooling is not None:
            return self._base.pooling(answers, inputs["attention_mask"])[0].cpu()
        return answers[0].cpu()

    def _message(
        self, got: Tensor, want: Tensor, given: Input, name: str | None, num_inputs: int
    ) -> str:
        error = float((got - want).float().norm() / want.float().norm())
        what = "an image" if isinstance(given, Tensor) else f"a text of {len(given)} tokens"
        called = {None: "by the base itself", "all": "with an adapter on all of its layers"}
        return (
            f"{type(self._base.model).__name__} is not served: the answer for {what} "
            f"{called.get(name, 'with an adapter')}, in a batch of {num_inputs}, differs by "
            f"{error:.1e} from transformers' own for that input alone"
        )


def _alone(given: Input, device: torch.device) -> dict[str, Tensor]:
    """Return one text as transformers' models read it."""
    ids = torch.tensor([given.ids if isinstance(given, TypedText) else given], device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if isinstance(given, TypedText):
        inputs["token_type_ids"] = torch.tensor([given.types], device=device)
    return inputs


def _batches(
    base: Base, inputs: Sequence[Input], owner: str | None
) -> list[tuple[Group, list[Input]]]:
    """Return the inputs by group: those of one group share a batch."""
    groups: defaultdict[Group, list[Input]] = defaultdict(list)
    for given in inputs:
        groups[group_of(given, base.max_length, base.spec.pads, owner)].append(given)
    return list(groups.items())


def _inputs(base: Base) -> list[Input]:
    if base.images is not None:
        like = next(base.model.parameters())
        return list(image_inputs(base.images, like)["pixel_values"].float().cpu())
    texts: Any = Texts.of(base.model, base.tokenizer, base.max_length)
    long = [texts.reach - 3] * 2 if texts.reach > max(_LENGTHS) else []
    lengths = [length for length in (*_LENGTHS, *long) if length <= base.max_length]
    return [texts.text(length, seed) for seed, length in enumerate(lengths or [base.max_length])]
