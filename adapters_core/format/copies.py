"""Copies of the base's embeddings in a coefficient file, which PEFT's save_embedding_layers makes.

PEFT does so unasked where the output layer or the embedding is adapted. A copy that is the base's
own weight says nothing and is left aside; another one is another base.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import Tensor

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.peft_fields import MERGE
from adapters_core.contract.safetensors_header import Header
from adapters_core.errors import BaseMismatch
from adapters_core.format.keys import PREFIX


def without_copies(
    header: Header, base: BaseSpec, replaced: Collection[str] = ()
) -> tuple[Header, dict[str, str]]:
    """Return the header without copies of the base's embeddings, and key -> embedding of each.

    Those that the adapter replaces as a whole are no copies.
    """
    paths = [path for path in base.embeddings if path not in replaced]
    names = {f"{PREFIX}{path}.weight": path for path in paths}
    names |= {f"{PREFIX}{path}.base_layer.weight": path for path in paths}
    copies = {key: names[key] for key in header.tensors if key in names}
    rest = {key: entry for key, entry in header.tensors.items() if key not in copies}
    return replace(header, tensors=rest), copies


def check_copies(
    tensors: Mapping[str, Tensor], header: Header, copies: Mapping[str, str], base: BaseSpec
) -> None:
    """Hold copies against the base's own weights, value by value.

    Args:
        tensors: of the file, float32.
        header: of the file: the dtypes that it has them in.
        copies: key -> embedding.
        base: the adapter's.

    Raises:
        BaseMismatch: one is another weight, or of another shape.
    """
    for key, path in copies.items():
        if not base.embeddings[path].is_same(tensors[key], header.tensors[key].dtype):
            raise BaseMismatch(
                f"{key} is not the weight that base {base.name!r} has: the adapter belongs to a "
                "base with another vocabulary, or with trained embeddings. If they are meant, name "
                "them in modules_to_save; if not, save the adapter with "
                f"save_embedding_layers=False; or {MERGE}",
                key,
            )
