"""Modules that transformers 5 calls otherwise than transformers 4 did, as the library itself says.

It keeps these names as regular expressions over the keys of checkpoints, by model type. Those that
rename and do nothing else hold for an adapter's keys, too.
"""

import re
from collections.abc import Sequence

from torch import nn
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

#: An expression over a key of before, and what stands there now.
Rename = tuple[str, str]


def renames_of(model: nn.Module) -> tuple[Rename, ...]:
    """Return the renames of a loaded model's type, in the order in which they are applied."""
    model_type = str(getattr(getattr(model, "config", None), "model_type", ""))
    return tuple(
        (one.source_patterns[0], one.target_patterns[0])
        for one in get_checkpoint_conversion_mapping(model_type) or ()
        if type(one) is WeightRenaming and len(one.source_patterns) == 1
    )


def renamed(path: str, renames: Sequence[Rename]) -> str:
    """Return the present name of a module or parameter."""
    for source, target in renames:
        path = re.sub(source, target, path, count=1)
    return path
