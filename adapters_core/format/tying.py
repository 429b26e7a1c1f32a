"""Updates of an input embedding and an output layer that share a weight (`ensure_weight_tying`).

PEFT then changes both by one update and saves both. A file in which they differ is none of those.
"""

from collections.abc import Collection, Mapping, Sequence

import torch

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Coefficients
from adapters_core.contract.method import Method
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import InvalidAdapter
from adapters_core.methods import LoRA, LoRAEmbedding

_FIELD = "ensure_weight_tying"


def tied_to(target: str, config: PeftConfig, base: BaseSpec) -> Sequence[str]:
    """Return the layers that are adapted if one of them is: the target, and what it is tied to."""
    pair = [*base.lookups, *base.outputs]
    is_one = base.tied and bool(config.raw.get(_FIELD)) and target in pair
    return pair if is_one else [target]


def check_pair(found: Collection[str], config: PeftConfig, base: BaseSpec) -> None:
    """Refuse a file with the update of one of two tied layers alone.

    Raises:
        InvalidAdapter: `param` is the config's field.
    """
    for target in found:
        for other in tied_to(target, config, base):
            if other not in found:
                raise InvalidAdapter(
                    f"{_FIELD} = true makes the update of {target} one of {other}, too, but the "
                    f"file has no tensor for {other}; save the adapter with PEFT once more, or "
                    "write false",
                    _FIELD,
                )


def check_tied(
    config: PeftConfig,
    methods: Mapping[str, Method],
    layers: Mapping[str, Coefficients],
    base: BaseSpec,
) -> None:
    """Refuse a file whose tied layers have different updates.

    Raises:
        InvalidAdapter: `param` is the layer's path.
    """
    if not base.tied or not config.raw.get(_FIELD):
        return
    for path in base.lookups:
        for output in base.outputs:
            if path in methods and output in methods:
                _hold(output, _by_output(methods[path], layers[path]), layers[output])


def _by_output(method: Method, layer: Coefficients) -> Coefficients:
    """Return an embedding's coefficients as those of the output layer with the same weight."""
    if not isinstance(method, LoRAEmbedding):
        return layer
    (a, b), (own_a, own_b) = method.factors, LoRA.factors
    return {own_a: layer[b].T, own_b: layer[a].T}


def _hold(target: str, expected: Coefficients, found: Coefficients) -> None:
    for name, tensor in found.items():
        if name not in expected or not torch.equal(tensor, expected[name]):
            raise InvalidAdapter(
                f"{_FIELD} = true, but {target}.{name} is not the input embedding's update; save "
                "the adapter with PEFT's save_pretrained once more, or write false to have both "
                "as they stand in the file",
                target,
            )
