"""One forward pass over a batch of sequences or images, each with its own adapter.

Attention stays transformers' own; the linears read the plan, the head's modules the switch.

**An answer does not depend on the rest of its batch**: sequences of one padded length make a batch
(`group_of`), linears compute over a multiple of four rows, and there is always a mask or never one.
docs/decisions.md has the measurements.
"""

from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters_core.base.padding import padded
from adapters_core.layers.inject import Injection
from server.adapters.payload import Factored, Merged
from server.base.device_setup import set_up
from server.base.pooling import Pooling
from server.encoding.head_switch import HeadSwitch
from server.encoding.plan import EncodingPlan, Payload

LENGTH_MULTIPLE = 16


@dataclass(frozen=True)
class TypedText:
    """A text's tokens, each with a type: of a pair, which of the two texts it is of."""

    ids: tuple[int, ...]
    types: tuple[int, ...]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)


#: One input: its tokens, or float32 pixels `[channels, height, width]`.
Input = tuple[int, ...] | TypedText | Tensor


def num_tokens(given: Input) -> int:
    """Return how many tokens an input has; an image has none."""
    return 0 if isinstance(given, Tensor) else len(given)


@dataclass(frozen=True)
class Group:
    """Inputs that may share a batch.

    Args:
        length: padded length; 0 for images.
        is_full: whether the text fills it, without padding.
        form: of an image; of texts, whether their tokens have types: to some bases a text of one
            type is another one than a text without.
        owner: the one adapter of all these inputs; None where adapters may be mixed.
    """

    length: int
    is_full: bool
    form: Hashable = None
    owner: Hashable = None


def group_of(given: Input, max_length: int, pads: bool = True, owner: Hashable = None) -> Group:
    """Return which inputs `given` may share a batch with.

    A text ends in padding as long as the base has room for it. transformers drops a mask that masks
    nothing and then uses another attention kernel: so full ones have batches of their own.

    Args:
        given: the input.
        max_length: of a text.
        pads: whether padding changes no answer of this base.
        owner: the adapter, if it changes what all inputs of a batch share.
    """
    if isinstance(given, Tensor):
        return Group(0, False, tuple(given.shape), owner)
    length = len(given)
    form = "typed" if isinstance(given, TypedText) else None
    if not pads:
        return Group(length, True, form, owner)
    padded = min((length // LENGTH_MULTIPLE + 1) * LENGTH_MULTIPLE, max_length)
    return Group(padded, length == padded, form, owner)


class Encoder:
    """The injected base.

    Args:
        injection: of the base.
        switch: of its head's modules; None for a base without a head.
        num_labels: of the base's own head.
        pad_id: the padding's token.
        pooling: of an embedder.
        shared: the linears that see what all inputs of a batch share.
    """

    def __init__(
        self,
        injection: Injection,
        switch: HeadSwitch | None,
        num_labels: int,
        pad_id: int,
        pooling: Pooling | None,
        shared: Container[str] = (),
    ) -> None:
        self._shared = shared
        self._injection = injection
        self._model: nn.Module = injection.model
        self._switch = switch
        self._num_labels = num_labels
        self._pad_id = pad_id
        self._pooling = pooling
        first = next(self._model.parameters())
        self._device, self._dtype = first.device, first.dtype
        set_up(self._device)

    @torch.inference_mode()
    def run(
        self, inputs: Sequence[Input], group: Group, payloads: Sequence[Payload]
    ) -> list[Tensor]:
        """Return each input's logits `[labels]` or vector `[width]`, float32 on the CPU.

        Args:
            inputs: all of one group.
            group: theirs.
            payloads: each one's adapter in memory.
        """
        given = self._tensors(inputs, group)
        switch = self._injection.switch
        switch.plan = EncodingPlan(payloads, self._device, self._shared)
        heads = [p.head if isinstance(p, Factored | Merged) else None for p in payloads]
        if self._switch is not None:
            self._switch.heads = heads
        try:
            output: Any = self._model(**given)
        finally:  # plan and heads hold weights that may be evicted before the next batch
            switch.plan = None
            if self._switch is not None:
                self._switch.heads = ()
        if self._pooling is not None:
            return list(self._pooling(output.last_hidden_state, given["attention_mask"]).cpu())
        widths = [head.num_labels if head else self._num_labels for head in heads]
        logits = output.logits.float().cpu()
        return [row[:width] for row, width in zip(logits, widths, strict=True)]

    def _tensors(self, inputs: Sequence[Input], group: Group) -> dict[str, Tensor]:
        pixels = [given for given in inputs if isinstance(given, Tensor)]
        if pixels:
            return {"pixel_values": torch.stack(pixels).to(self._device, self._dtype)}
        texts = [given for given in inputs if not isinstance(given, Tensor)]
        ids = [given.ids if isinstance(given, TypedText) else given for given in texts]
        made = padded(ids, self._pad_id, group.length)
        types = [given.types for given in texts if isinstance(given, TypedText)]
        if types:  # of all: the group says so
            made["token_type_ids"] = padded(types, 0, group.length)["input_ids"]
        return {name: tensor.to(self._device) for name, tensor in made.items()}
