"""What a base that reads texts or images as a whole does with a batch: found out at every start.

An adapter of one sequence changes that sequence's rows. That is right where a linear sees each
sequence's rows together and in the batch's order. A linear that sees something that all sequences
share (a table of relative positions, say) is a *shared* target: an adapter that changes it has
batches of its own, where every row is its own. And texts of different lengths share a batch by
padding: that is right where the padding changes no answer.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters_core.base.padding import padded
from adapters_core.base.rotations import border_of
from adapters_core.base.rows_seen import Seen, rows_seen
from adapters_core.base.spec import BaseSpec, changeable

_LOG = logging.getLogger(__name__)
_SEQUENCES = 3
_TOKENS = 24
_ROWS_TOLERANCE = 0.05
#: Of an answer's norm: what another order of sums, and rounding to bfloat16, may change.
_TOLERANCE = 1e-3
_HALF_TOLERANCE = 0.05
#: True lengths that are padded to one.
_LENGTHS = (2, 3, 9, 17, 23)
#: Fields of a config that say how far a text's parts see, and how many such reaches make it long.
_REACHES = {
    "attention_window": 2.5,
    "local_attention": 2.5,
    "sliding_window": 2.5,
    "attention_chunk_size": 2.5,
    "chunk_size_feed_forward": 2.5,
    "block_size": 13,
    "local_attn_chunk_length": 2.5,
    "lsh_attn_chunk_length": 2.5,
}
_LONGEST = 2048
_NOT_CALLED = "the base's forward pass does not call it: its weights are not used, or read directly"

Inputs = Mapping[str, Tensor]
Text = tuple[int, ...]


@dataclass(frozen=True)
class Texts:
    """Made-up texts for one base, with what its tokenizer puts around them.

    Args:
        front, back: tokens before and behind every text.
        ordinary: token ids that mean nothing special.
        pad_id: the padding's token.
        reach: a length beyond every window of the base, or the most that it takes.
    """

    front: Text
    back: Text
    ordinary: Sequence[int]
    pad_id: int
    reach: int

    @classmethod
    def of(cls, model: nn.Module, tokenizer: Any, max_length: int) -> "Texts":
        """Return what makes texts for a base with this tokenizer."""
        config: Any = model.config
        special = set(tokenizer.all_special_ids) | {config.pad_token_id}
        ids = tuple(tokenizer("a a")["input_ids"])
        front = next((i for i, token in enumerate(ids) if token not in special), 0)
        back = next((i for i, token in enumerate(reversed(ids)) if token not in special), 0)
        vocabulary = config.get_text_config().vocab_size
        # A few thousand are as good as all: what is special stands at either end, or is named.
        ordinary = [i for i in range(min(vocabulary, 5000)) if i not in special]
        reach = min(max_length, _LONGEST, _reach(config))
        return cls(ids[:front], ids[len(ids) - back :], ordinary, config.pad_token_id, reach)

    def text(self, length: int, seed: int) -> Text:
        """Return a text of so many tokens, or of one between what stands around it."""
        inner = max(1, length - len(self.front) - len(self.back))
        count = len(self.ordinary)
        body = tuple(self.ordinary[(7 + 31 * i + 101 * seed) % count] for i in range(inner))
        return self.front + body + self.back


def _reach(config: Any) -> int:
    """Return a length beyond every window that a config names."""
    reach, fields = float(_TOKENS), config.to_dict()
    for name, factor in _REACHES.items():
        given = fields.get(name)
        for one in given if isinstance(given, list | tuple) else [given]:
            if isinstance(one, int) and one > 1:
                reach = max(reach, factor * one)
    return int(reach)


def probed_texts(spec: BaseSpec, model: nn.Module, tokenizer: Any, max_length: int) -> BaseSpec:
    """Return `spec` with `shared`, `left_out` and `pads` as this base needs them.

    Args:
        spec: of the model.
        model: a classifier or an embedder of texts, before anything is injected into it.
        tokenizer: its own; its config has a padding token.
        max_length: the most tokens that a text may have.

    Raises:
        ValueError: the model cannot be run on token ids and a mask alone.
    """
    texts = Texts.of(model, tokenizer, max_length)
    length = min(_TOKENS, max_length)
    device = next(model.parameters()).device
    same = padded([texts.text(length, seed) for seed in range(_SEQUENCES)], texts.pad_id)
    with _named_faults(model, "token ids and a mask"):
        spec = _with_shared(spec, model, _on(same, device))
        pads = border_of(model) is None and ignores_padding(model, texts, max_length)
        return replace(spec, pads=pads)


def probed_images(spec: BaseSpec, model: nn.Module, processor: Any) -> BaseSpec:
    """Return `spec` with `shared` and `left_out` as an image classifier needs them.

    Raises:
        ValueError: the model cannot be run on pixels alone.
    """
    with _named_faults(model, "pixel values"):
        return _with_shared(spec, model, image_inputs(processor, next(model.parameters())))


def image_inputs(processor: Any, like: Tensor) -> dict[str, Tensor]:
    """Return a few different images of the size that a base's processor makes, as `like`."""
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    shape = processor(images=blank, return_tensors="np")["pixel_values"][0].shape
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(_SEQUENCES, *shape, generator=generator)
    return {"pixel_values": pixels.to(like.device, like.dtype)}


@torch.inference_mode()
def ignores_padding(model: nn.Module, texts: Texts, max_length: int) -> bool:
    """Return whether every text's answer is the same with padding behind it and without.

    Args:
        model: a classifier, or a body whose hidden states are looked at.
        texts: of this base.
        max_length: the most tokens that a text may have.
    """
    device = next(model.parameters()).device
    lengths = [length for length in _LENGTHS if length < max_length] or [max_length]
    batches = [lengths]
    if texts.reach > _TOKENS:
        batches.append([2, texts.reach - 5])
    for wanted in batches:
        several = [texts.text(length, seed) for seed, length in enumerate(wanted)]
        width = min(max_length, max(map(len, several)) + 1)
        whole = answers_of(model, _on(padded(several, texts.pad_id, width), device))
        for row, text in enumerate(several):
            alone = answers_of(model, _on(padded([text], texts.pad_id), device))[0]
            if not agree(_same_tokens(whole[row], alone), alone):
                return False
    return True


def answers_of(model: nn.Module, inputs: Inputs) -> Tensor:
    """Return logits `[B, labels]`, or hidden states `[B, L, width]` of a body."""
    output: Any = model(**inputs)
    logits = getattr(output, "logits", None)
    answers = output.last_hidden_state if logits is None else logits
    assert isinstance(answers, Tensor)
    return answers


def agree(one: Tensor, other: Tensor) -> bool:
    """Return whether two ways to one answer give the same, up to their dtype's rounding."""
    tolerance = _TOLERANCE if other.dtype == torch.float32 else _HALF_TOLERANCE
    one, other = one.float(), other.float()
    return bool((one - other).norm() <= tolerance * other.norm())


def _same_tokens(padded: Tensor, alone: Tensor) -> Tensor:
    return padded if padded.dim() == 1 else padded[: len(alone)]


def _with_shared(spec: BaseSpec, model: nn.Module, inputs: Inputs) -> BaseSpec:
    linears = changeable(model)
    whole = rows_seen(model, linears, inputs)
    count = len(next(iter(inputs.values())))
    each = ({k: t[i : i + 1] for k, t in inputs.items()} for i in range(count))
    alone = [rows_seen(model, linears, one) for one in each]
    called = [path for path in spec.targets if path in whole]
    shared = [path for path in called if not _is_batched(path, whole, alone)]
    unused = {path: _NOT_CALLED for path in spec.targets if path not in whole}
    for path in shared:
        _LOG.info("%s sees what a batch shares: adapters that change it go alone", path)
    for path, reason in unused.items():
        _LOG.warning("no adapter may change %s: %s", path, reason)
    targets = {path: shape for path, shape in spec.targets.items() if path not in unused}
    left_out = {**spec.left_out, **unused}
    return replace(spec, targets=targets, shared=frozenset(shared), left_out=left_out)


def _is_batched(path: str, whole: Seen, alone: Sequence[Seen]) -> bool:
    """Return whether a linear sees each sequence's rows together, in the batch's order."""
    calls = [one.get(path, []) for one in alone]
    if any(len(one) != len(whole[path]) for one in calls):
        return False
    for number, rows in enumerate(whole[path]):
        expected = torch.cat([one[number] for one in calls])
        if rows.shape != expected.shape:
            return False
        if not (rows - expected).norm() <= _ROWS_TOLERANCE * expected.norm():
            return False
    return True


@contextmanager
def _named_faults(model: nn.Module, given: str) -> Iterator[None]:
    """Say of which model it is, and on what, that a forward pass raises."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be run on {given} alone: {type(error).__name__}: "
            f"{str(error)[:300]}"
        ) from error


def _on(inputs: Inputs, device: torch.device) -> Inputs:
    return {name: tensor.to(device) for name, tensor in inputs.items()}
