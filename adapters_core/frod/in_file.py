"""What a FRoD file says of its basis: V itself and the positions of S, or only their digests.

`frod_V.<category>` `[N, N]`, `frod_s_indices.<category>` int64 `[2, n]`, rows then columns, and
`frod_s_size.<category>` `[N, N]` are PEFT's, where its config says `save_projection`. Where it does
not, our own `frod_digest.<category>` uint8 `[2, 32]` has the sha256 of V and of the positions.
"""

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, FileView
from adapters_core.errors import InvalidAdapter
from adapters_core.frod.joint import REGULARISATION, category_of, check_canonical
from adapters_core.frod.off_diagonal import checked_positions

LAMBDA, VALUES = "frod_lambda_l", "frod_lambda_s_values"
V, INDICES, SIZE, DIGEST = "frod_V", "frod_s_indices", "frod_s_size", "frod_digest"
DIGEST_BYTES = 32
_NEVER_ALIKE = "V computed anew is another one: save the adapter with save_projection=True"


def key_of(name: str, category: str) -> str:
    """Return the key of what a file holds once for a category."""
    return f"base_model.{name}.{category}"


def check_small(view: FileView, regularisation: float) -> None:
    """Refuse a file without V that is not ours, and one with a basis that costs too much.

    Raises:
        InvalidAdapter: the file has V after all, or no digest of it; the base's layers share no
            basis, or it costs too much; V was not made as here.
    """
    for category in sorted({category_of(target) for target in view.tensors}):
        if f"{V}.{category}" in view.shared:
            message = f"save_projection is false, but the file has {V}.{category}: set it to true"
            raise InvalidAdapter(message, "save_projection")
        if f"{DIGEST}.{category}" not in view.shared:
            raise InvalidAdapter(
                f"save_projection is false and the file has no {DIGEST}.{category} to say which V "
                f"it was trained on; {_NEVER_ALIKE} where it was trained, or train with Overtone",
                "save_projection",
            )
        check_canonical(category, view.shapes)
    if regularisation != REGULARISATION:
        raise InvalidAdapter(
            f"regularization_alpha = {regularisation}: without {V} in the file only "
            f"{REGULARISATION} is served",
            "regularization_alpha",
        )


def check_widths(widths: dict[str, int], target: str, width: int) -> None:
    """Enter a layer's width for its category, which is that of all its layers.

    Raises:
        InvalidAdapter: another layer of the category has another width.
    """
    category = category_of(target)
    if widths.setdefault(category, width) != width:
        raise InvalidAdapter(
            f"{target} is {width} wide, another layer of {category} {widths[category]}: they share "
            "no basis",
            target,
        )


def saved_positions(layer: Coefficients, category: str) -> Tensor:
    """Return a file's positions of S, int64 `[2, n]`, after checking them and its size.

    Raises:
        InvalidAdapter: S is not `[N, N]`, or a position is outside or on the diagonal.
    """
    width = layer[LAMBDA].numel()
    size, key = layer[SIZE].tolist(), key_of(SIZE, category)
    if size != [width, width]:
        raise InvalidAdapter(f"{key} is {size}, not {[width, width]}", key)
    indices = layer.get(INDICES, torch.empty(2, 0, dtype=torch.int64))
    return checked_positions(indices, width, key_of(INDICES, category))


def said_digests(layer: Coefficients, category: str) -> tuple[str, str]:
    """Return the digests `sha256:…` of V and of the positions that a small file says.

    Raises:
        InvalidAdapter: they are not bytes.
    """
    held, key = layer[DIGEST], key_of(DIGEST, category)
    if held.dtype != torch.uint8:
        raise InvalidAdapter(f"{key} has dtype {held.dtype}, not uint8", key)
    v, positions = (f"sha256:{bytes(row.tolist()).hex()}" for row in held)
    return v, positions


def digest_tensor(v_digest: str, positions_digest: str) -> Tensor:
    """Return two digests `sha256:…` as a small file holds them."""
    both = (bytes.fromhex(text.removeprefix("sha256:")) for text in (v_digest, positions_digest))
    return torch.tensor([list(digest) for digest in both], dtype=torch.uint8)


def check_positions_digest(made: str, said: str, category: str) -> None:
    """Hold the positions that a seed gives here against those that a file was trained on.

    Raises:
        InvalidAdapter: they differ.
    """
    if made != said:
        key = key_of(DIGEST, category)
        message = f"{key}: trained on positions with digest {said}; the seed gives {made} here"
        raise InvalidAdapter(message, key)


def check_v_digest(made: str, said: str, category: str) -> None:
    """Hold the V that this base gives against the one a file was trained on, if it says which.

    Raises:
        InvalidAdapter: they differ.
    """
    if said not in ("", made):
        raise InvalidAdapter(
            f"the file was trained on a V of {category} with digest {said}; this base gives the "
            f"one with {made}; {_NEVER_ALIKE} where it was trained",
            key_of(DIGEST, category),
        )
