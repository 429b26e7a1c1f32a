"""The basis that a base has in a category by itself: V and all its layers' factors, kept on disk.

It is computed once for a base, in one go, by the trainer or the server, whichever needs it first.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from adapters_core.contract.layer import Derived, Weights
from adapters_core.errors import InvalidAdapter
from adapters_core.frod.factors import Factoriser, Factors, factors_work
from adapters_core.frod.joint import (
    Joint,
    category_of,
    check_canonical,
    digest_of,
    joint_basis,
    mean_work,
    members_of,
    qr_work,
)

_V, _U, _LAMBDA = "V", "U.{}", "lambda.{}"


def canonical(base: Weights, category: str) -> Joint:
    """Return the basis of all layers that the base has in a category; shared while it is used.

    Raises:
        InvalidAdapter: see `check_canonical`; or the weights have no joint basis.
        BasisPending: it is being computed beside this process.
    """
    check_canonical(category, base.shapes)

    def held() -> Joint:
        kept = base.kept(_derived(base, category))
        own = {
            path: Factors(kept[_U.format(path)], kept[_LAMBDA.format(path)])
            for path in members_of(category, base.shapes)
            if _U.format(path) in kept
        }
        return Joint(kept[_V], digest_of(kept[_V]), own)

    return base.held(("frod", category), held)


def _derived(base: Weights, category: str) -> Derived:
    members = members_of(category, base.shapes)
    shapes = [base.shapes[path] for path in members]
    rows, width = sum(shape.out for shape in shapes), shapes[0].in_
    means = sum(mean_work(shape.out, width) for shape in shapes)
    work = qr_work(rows, width) + means + factors_work(rows, width)
    return Derived(f"frod-{category}", tuple(members), decomposed, category, work)


def decomposed(
    base: Weights, category: str, report: Callable[[float], None] = lambda share: None
) -> dict[str, Tensor]:
    """Return V of a category, and U and lambda of its layers, where V gives them back, by name.

    Raises:
        InvalidAdapter: the weights have no joint basis.
    """
    derived, done = _derived(base, category), 0.0

    def did(work: float) -> None:
        nonlocal done
        done += work
        report(done / derived.work)

    v = base.kept_before(f"frod-V-{category}")
    if v is None:
        v = joint_basis((base.weight(path) for path in derived.paths), did)
    made = {_V: v}
    factoriser = Factoriser(v.to(base.weight(derived.paths[0]).device))
    for path in derived.paths:
        weight = base.weight(path)
        try:
            own = factoriser.factors(weight)
        except InvalidAdapter:  # `factors` says so where this layer is needed
            continue
        made |= {_U.format(path): own.u, _LAMBDA.format(path): own.lambda0}
        did(factors_work(*weight.shape))
    return made


def factors(
    base: Weights, path: str, joint: Joint, device: torch.device, dtype: torch.dtype
) -> Factors:
    """Return the factors of the layer at `path` in a basis; shared while they are in use.

    Raises:
        InvalidAdapter: V is singular, or U diag(lambda) V^T is not the base's weight.
    """
    return base.held(
        ("frod", path, joint.digest, str(device), dtype),
        partial(_factors, base, path, joint, device, dtype),
    )


def _factors(
    base: Weights, path: str, joint: Joint, device: torch.device, dtype: torch.dtype
) -> Factors:
    made = joint.own.get(path)
    if made is None:
        try:
            weight = base.weight(path)
            made = Factoriser(joint.v.to(weight.device)).factors(weight)
        except InvalidAdapter as error:
            key = f"base_model.frod_V.{category_of(path)}"
            raise InvalidAdapter(f"{key} on {path}: {error.message}", key) from error
    # A copy of its own: kept tensors lie in a file, where no address is a multiple of 64.
    return Factors(made.u.to(device, dtype, copy=True), made.lambda0.to(device, copy=True))
