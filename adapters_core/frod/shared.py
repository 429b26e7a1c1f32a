"""What FRoD adapters with the same V and positions share on a layer, on the batch's device."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adapters_core.contract.layer import Site
from adapters_core.frod.canonical import factors
from adapters_core.frod.factors import Factors
from adapters_core.frod.joint import Joint
from adapters_core.gpu_kernels.running import runs_on
from adapters_core.gpu_kernels.sliced import Sliced, sliced
from adapters_core.transforms.factored import Core, PlainLine, analysed, through_core


@dataclass(frozen=True)
class FRoDBasis:
    """U, lambda0 and V of a layer, and the positions of S.

    Args:
        joint: V `[in, in]`; one for all layers of the category.
        own: U `[out, in]` and lambda0 `[in]`; one for all choices of positions.
        positions: int64 `[2, n]`, rows then columns of S.
        rows, cols: int32 `[in + n]`: the diagonal, then the positions.
        positions_digest: of the positions.
        dtype: of the products.
        core: rows and cols as kernels read them, where these run; one for all layers.
    """

    joint: Joint
    own: Factors
    positions: Tensor
    rows: Tensor
    cols: Tensor
    positions_digest: str
    dtype: torch.dtype
    core: Sliced | None = None

    @property
    def v(self) -> Tensor:
        """Return V."""
        return self.joint.v

    @property
    def u(self) -> Tensor:
        """Return U."""
        return self.own.u

    def stretch(self, lambda_: Tensor) -> Tensor:
        """Return lambda - lambda0 `[in]` in the basis' dtype."""
        device = self.own.lambda0.device
        return lambda_.to(device, self.dtype) - self.own.lambda0.to(self.dtype)

    def mixed(self, lambda_: Tensor, values: Tensor | None) -> Tensor:
        """Return (S + diag(lambda - lambda0)) V^T, `[in, in]`, differentiable in both."""
        result = self.stretch(lambda_)[:, None] * self.v.T
        if values is None:
            return result
        values = values.to(self.dtype)
        # The positions were checked with the file.
        sparse = torch.sparse_coo_tensor(
            self.positions, values, tuple(self.v.shape), check_invariants=False
        )
        return result + torch.sparse.mm(sparse, self.v.T)

    def through(self, x: Tensor, lambda_: Tensor, values: Tensor | None) -> Tensor:
        """Return the rows x `[T, in]` through U (S + diag(lambda - lambda0)) V^T: `[T, out]`."""
        line = PlainLine(self.v.shape[0])
        core = Core(line, self.rows.long(), self.cols.long())
        z = analysed(x.to(self.dtype) @ self.v, line, self.dtype)
        held = self.stretch(lambda_)
        if values is not None:
            held = torch.cat([held, values.to(self.dtype)])
        return F.linear(through_core(z, held, core), self.u).to(x.dtype)


def basis_of(
    site: Site,
    joint: Joint,
    positions: Tensor,
    positions_digest: str,
    device: torch.device,
    dtype: torch.dtype,
) -> FRoDBasis:
    """Return the basis of the layer at `site`; what others have of it already is not made again.

    Raises:
        InvalidAdapter: V is singular, or does not give back the base's weight.
    """
    own = factors(site.base, site.path, joint, device, dtype)

    def moved() -> Joint:
        v = joint.v.to(device, dtype)
        return joint if v is joint.v else Joint(v, joint.digest)

    shared = site.base.held(("frod V", joint.digest, str(device), dtype), moved)
    diagonal = torch.arange(joint.v.shape[0]).expand(2, -1)
    cells = torch.cat([diagonal, positions], dim=1)
    rows, cols = cells.to(device, torch.int32)
    core = None
    if runs_on(device):
        key = ("frod core", positions_digest, joint.v.shape[0], str(device))
        core = site.base.held(key, lambda: _core(cells, joint.v.shape[0]).to(device))
    return FRoDBasis(shared, own, positions.to(device), rows, cols, positions_digest, dtype, core)


def _core(cells: Tensor, width: int) -> Sliced:
    """Return the matrix of a row's packed numbers at rows and columns `[2, n]`."""
    numbers = torch.arange(cells.shape[1], dtype=torch.int32)
    return sliced(cells[0], cells[1], numbers, width)
