"""The largest singular values of a matrix and their vectors, without all the others.

Block Krylov subspaces of A^T A, each block orthogonal to all before it, and the best vectors in
them (Rayleigh and Ritz), in float64; Golub and Van Loan, Matrix Computations, section 10.4. As many
equal values are found as a block has columns. A decomposition of the whole matrix stands in where a
small matrix costs no more, and where the subspaces do not settle.
"""

from collections.abc import Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

#: How far A^T u may be from s v, of the largest s. It moves v by this over the gap to the next s.
TOLERANCE = 1e-9
#: Subspaces grow up to so many columns, as a part of the matrix's.
_SHARE = 2
_SMALL = 512
_GUARD = 2  # columns of a block beyond those that are wanted
_BLOCKS_BETWEEN_CHECKS = 8

Triplets = tuple[Tensor, Tensor, Tensor]


@torch.no_grad()
def leading_singular(matrix: Tensor, r: int) -> Triplets:
    """Return U `[M, r]`, s `[r]` and V^T `[r, N]` of a matrix `[M, N]`, float32, where it is."""
    is_wide = matrix.shape[0] < matrix.shape[1]
    tall = matrix.T if is_wide else matrix
    tall = tall.double()
    found = _krylov(tall, r) if tall.shape[1] > _SMALL else None
    u, s, vh = (part.float() for part in found or _whole(tall, r))
    return (vh.T, s, u.T) if is_wide else (u, s, vh)


def _whole(tall: Tensor, r: int) -> Triplets:
    u, s, vh = torch.linalg.svd(tall, full_matrices=False)
    return u[:, :r], s[:r], vh[:r]


def _krylov(a: Tensor, r: int) -> Triplets | None:
    """Return the triplets of a float64 matrix with no fewer rows than columns, if they settle."""
    columns, block = a.shape[1], r + _GUARD
    most = columns // _SHARE // block
    across = a.T.contiguous()
    spaces = islice(
        _spaces(a, across, block), _BLOCKS_BETWEEN_CHECKS - 1, most, _BLOCKS_BETWEEN_CHECKS
    )
    for basis, image in spaces:
        vectors = torch.linalg.eigh(image @ image.T).eigenvectors[:, -r:].flip(1).T
        vh, scaled = vectors @ basis, vectors @ image  # scaled: s u, as rows
        s = scaled.norm(dim=1)
        uh = scaled / s[:, None]
        wrong = F.linear(uh, across) - s[:, None] * vh
        if bool((wrong.norm(dim=1) <= TOLERANCE * s[0]).all()):
            return uh.T, s, vh
    return None


def _spaces(a: Tensor, across: Tensor, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield orthogonal bases Q^T `[k, N]`, each a block longer than the one before, and (A Q)^T.

    Vectors are rows and A stands there twice, `across` being its transpose: so both products read
    along rows, which is seven times as fast for a few vectors.
    """
    generator = torch.Generator().manual_seed(0)
    fresh = torch.randn(block, a.shape[1], generator=generator, dtype=a.dtype).to(a.device)
    basis, image = fresh[:0], across[:0]
    while True:
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            fresh = torch.linalg.qr((fresh - (fresh @ basis.T) @ basis).T).Q.T
        seen = F.linear(fresh, a)
        basis, image = torch.cat([basis, fresh]), torch.cat([image, seen])
        yield basis, image
        fresh = F.linear(seen, across)
