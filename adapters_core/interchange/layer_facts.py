"""What one layer of an adapter is: its coefficients, their positions, and the update they make.

The stable rank is ||delta||_F^2 / ||delta||_2^2: 1 for a rank-one update, at most the rank, and the
rank itself where all singular values are equal. It needs the largest singular value alone, which a
few steps of subspace iteration find without a decomposition. They find it from below, so the
stable rank may come out a little high, never low.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.layer import Coefficients, Shape
from adapters_core.contract.method import Method
from adapters_core.positions.seeded import positions_digest

_VECTORS, _STEPS, _TOLERANCE = 8, 60, 1e-5


@dataclass(frozen=True)
class Positions:
    """Where coefficients stand: how many, how many different cells, and a digest of them.

    The digest is the same for seeded positions and for the same ones held by a file: over the flat,
    row-major cells in the order of the coefficients.
    """

    n: int
    distinct: int
    digest: str


@dataclass(frozen=True)
class LayerFacts:
    """One layer of an adapter.

    Args:
        shape: `[out, in_]`.
        num_coefficients: numbers of its own; positions and what layers share do not count.
        places: of the coefficients; None for methods without any.
        energy: sum of the coefficients' squares.
        delta_norm: `||delta||_F`.
        relative_norm: `||delta||_F / ||weight||_F`; 0 for a weight that is zero.
        stable_rank: see above; 0 for a zero delta.
    """

    shape: Shape
    num_coefficients: int
    places: Positions | None
    energy: float
    delta_norm: float
    relative_norm: float
    stable_rank: float


@torch.inference_mode()
def layer_facts(
    method: Method, layer: Coefficients, shape: Shape, delta: Tensor, weight: Tensor
) -> LayerFacts:
    """Return the facts of a layer from its update `[out, in_]` and the base's weight."""
    specs = method.tensors(shape)
    own = [layer[name] for name, spec in specs.items() if spec.floating and spec.shared is None]
    norm, base_norm = float(delta.double().norm()), float(weight.double().norm())
    largest = largest_singular_value(delta)
    return LayerFacts(
        shape=shape,
        num_coefficients=sum(tensor.numel() for tensor in own),
        places=_positions(method, layer, shape),
        energy=sum(float(tensor.double().square().sum()) for tensor in own),
        delta_norm=norm,
        relative_norm=norm / base_norm if base_norm else 0.0,
        stable_rank=(norm / largest) ** 2 if largest else 0.0,
    )


def largest_singular_value(matrix: Tensor) -> float:
    """Return `||matrix||_2` of `[out, in_]` by subspace iteration, from below."""
    generator = torch.Generator().manual_seed(0)
    wide = matrix.float()
    vectors = torch.randn(wide.shape[1], min(_VECTORS, *wide.shape), generator=generator)
    found = 0.0
    for _ in range(_STEPS):
        images = wide @ torch.linalg.qr(vectors).Q
        before, found = found, float(torch.linalg.svdvals(images)[0])
        if found - before <= _TOLERANCE * found:
            break
        vectors = wide.T @ images
    return found


def _positions(method: Method, layer: Coefficients, shape: Shape) -> Positions | None:
    """Return the positions that the file holds, or those that the seed gives."""
    for tensor in layer.values():
        if not tensor.is_floating_point() and tensor.shape[:1] == (2,) and tensor.dim() == 2:
            rows, cols = tensor.long()
            flat = rows * shape.in_ + cols
            return Positions(flat.numel(), flat.unique().numel(), positions_digest(flat))
    digest = method.positions_digest(shape)
    if digest is None:
        return None
    n = next(tensor.numel() for tensor in layer.values())
    return Positions(n, n, digest)
