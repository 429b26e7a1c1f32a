"""Fixed matrices that adapters share: telling them apart, and the ranks that keep a row's bits."""

import hashlib
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from adapters_core.errors import InvalidAdapter

#: With fewer than twelve columns and an inner size that is no multiple of four, a float32 product
#: on a CPU may give a row other bits where it stands elsewhere (docs/decisions.md).
_RANK_MULTIPLE = 16


def padded_rank(r: int) -> int:
    """Return how many rows and columns fixed factors of rank r get, zeros from r on.

    Products with so many columns, or over so many, give a row its bits wherever it stands.
    """
    return r + -r % _RANK_MULTIPLE


def matrices_digest(matrices: Iterable[Tensor]) -> str:
    """Return `sha256:…` over the numbers, as little-endian float32, of one matrix after another."""
    digest = hashlib.sha256()
    for matrix in matrices:
        digest.update(matrix.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())
    return "sha256:" + digest.hexdigest()


def check_drawn(claimed: Any, drawn: Iterable[Tensor], field: str, seed: int) -> None:
    """Hold the matrices that a file was trained on against those its seed gives here.

    Raises:
        InvalidAdapter: `claimed`, from the file's header, is not the digest of `drawn`; names the
            config's `field` with the seed.
    """
    if claimed != matrices_digest(drawn):
        raise InvalidAdapter(
            f"{field} = {seed} gives other matrices here than those the file was trained on; save "
            "them with it",
            field,
        )
