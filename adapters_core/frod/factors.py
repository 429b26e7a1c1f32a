"""What one layer has alone in a basis V: U and lambda with W = U diag(lambda) V^T."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.errors import InvalidAdapter

#: How far U diag(lambda) V^T may be from the base's weight, of its norm.
TOLERANCE = 1e-4
#: A proof in float32 that comes as near to it as this is done again in float64.
_NEAR = 0.1 * TOLERANCE
_SHORTEST = 1e-12  # a column of this length or less has no direction


@dataclass(frozen=True)
class Factors:
    """One layer's own: U `[M, N]`, and lambda `[N]` as the base has it; both rounded to float32."""

    u: Tensor
    lambda0: Tensor


class Factoriser:
    """Solves for the factors of layers that share V, which is decomposed once.

    Args:
        v: `[N, N]`; the work is done where it is.

    Raises:
        InvalidAdapter: V is singular.
    """

    @torch.no_grad()
    def __init__(self, v: Tensor) -> None:
        self._v = v
        try:
            self._lu = torch.linalg.lu_factor(v.double())
        except RuntimeError as error:
            raise InvalidAdapter(f"V is singular: {error}") from error

    @torch.no_grad()
    def factors(self, weight: Tensor) -> Factors:
        """Return U `[M, N]` and lambda `[N]` of a weight `[M, N]`, after proving them.

        They are solved for in float64, and on the CPU.

        Raises:
            InvalidAdapter: U diag(lambda) V^T is not the weight.
        """
        weight = weight.to(self._v.device)
        scaled = torch.linalg.lu_solve(*self._lu, weight.double().T).T  # U diag(lambda)
        lengths = scaled.norm(dim=0)
        u = torch.where(lengths > _SHORTEST, scaled / lengths.clamp_min(_SHORTEST), 0.0)
        made = Factors(u.float(), lengths.float())
        wrong = self._error(made, weight, torch.float32)
        if not wrong <= _NEAR:
            wrong = self._error(made, weight, torch.float64)
        if not wrong <= TOLERANCE:  # a NaN is refused as well
            raise InvalidAdapter(
                f"V does not give back the base's weight: relative error {wrong:.1e}, at most "
                f"{TOLERANCE:.0e}; it is singular or nearly so"
            )
        return Factors(made.u.cpu(), made.lambda0.cpu())

    def _error(self, made: Factors, weight: Tensor, dtype: torch.dtype) -> float:
        """Return how far the factors' product is from the weight, of its norm."""
        again = (made.u.to(dtype) * made.lambda0.to(dtype)) @ self._v.to(dtype).T
        weight = weight.to(dtype)
        return float((again - weight).norm() / weight.norm().clamp_min(_SHORTEST))


def factors_work(rows: int, width: int) -> int:
    """Return the multiplications of one layer's factors, in float32's, about."""
    return 3 * rows * width**2
