"""Which linears of an encoder may be adapted sequence by sequence: found out at every start.

An adapter of one sequence changes that sequence's rows. That is right where a linear sees each
sequence's rows together and in the batch's order; a linear that sees something that all sequences
share (a table of relative positions, say) is left to the base, and no adapter may change it: none
is served on it, so none is trained on it.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters_core.base import BaseSpec, adaptable

_LOG = logging.getLogger(__name__)
_SEQUENCES = 3
_TOKENS = 24
_TOLERANCE = 0.05

_REASON = "its rows are not those of one text of a batch: all texts share them"

Inputs = Mapping[str, Tensor]
#: Path -> one number for every row, call by call.
Seen = dict[str, list[Tensor]]


def with_batched_targets(spec: BaseSpec, model: nn.Module, inputs: Inputs) -> BaseSpec:
    """Return `spec` without the targets whose rows are not the batch's; `left_out` names them.

    Args:
        spec: of the model.
        model: before anything is injected into it.
        inputs: a few different sequences, as the model takes them.
    """
    whole = rows_seen(model, inputs)
    count = len(next(iter(inputs.values())))
    alone = [rows_seen(model, {k: t[i : i + 1] for k, t in inputs.items()}) for i in range(count)]
    good = {
        path: shape
        for path, shape in spec.targets.items()
        if _is_batched(whole.get(path, []), [one.get(path, []) for one in alone])
    }
    left_out = {path: _REASON for path in spec.targets if path not in good}
    for path in left_out:
        _LOG.warning("no adapter may change %s: %s", path, _REASON)
    return replace(spec, targets=good, left_out={**spec.left_out, **left_out})


def _is_batched(whole: list[Tensor], alone: list[list[Tensor]]) -> bool:
    if not whole or any(len(one) != len(whole) for one in alone):
        return False
    for number, rows in enumerate(whole):
        expected = torch.cat([one[number] for one in alone])
        if rows.shape != expected.shape:
            return False
        if not (rows - expected).norm() <= _TOLERANCE * expected.norm():
            return False
    return True


@torch.inference_mode()
def rows_seen(model: nn.Module, inputs: Mapping[str, Any]) -> Seen:
    """Return what each linear saw in one forward pass, a random projection of every row."""
    seen: defaultdict[str, list[Tensor]] = defaultdict(list)
    hooks = []

    def watch(path: str, module: nn.Module) -> None:
        def look(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].reshape(-1, args[0].shape[-1]).float()
            direction = torch.randn(x.shape[-1], generator=torch.Generator().manual_seed(0))
            seen[path].append((x @ direction.to(x.device)).cpu())

        hooks.append(module.register_forward_pre_hook(look))

    for path, module in adaptable(model):
        watch(path, module)
    try:
        model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def text_inputs(vocabulary: int, max_length: int, device: torch.device) -> Inputs:
    """Return a few different texts of one length."""
    length = min(_TOKENS, max_length)
    ids = (7 + 31 * torch.arange(_SEQUENCES * length)) % vocabulary
    ids = ids.view(_SEQUENCES, length).to(device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def image_inputs(processor: Any, like: Tensor) -> Inputs:
    """Return a few different images of the size that a base's processor makes, as `like`."""
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    shape = processor(images=blank, return_tensors="np")["pixel_values"][0].shape
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(_SEQUENCES, *shape, generator=generator)
    return {"pixel_values": pixels.to(like.device, like.dtype)}
