"""The joint decomposition of all layers of one role: one V for them all, U and lambda for each.

    W_i = U_i diag(lambda_i) V^T,      W_i [M, N], U_i [M, N] with columns of length one, V [N, N]

A role, or category, is what a layer's path ends with: all query projections of a base are one. V is
that of the higher-order generalised singular value decomposition of the stack T = [W_1; ...; W_l]:
with T = Q R and Q_i the rows of Q that belong to W_i,

    V = R^T E,     E the eigenvectors of  (1/l) sum_i (Q_i^T Q_i + a I)^-1,     a = 1e-3,

and where the stack has fewer rows than columns, V is its full right singular basis. The algorithm,
the categories and their order are those of PEFT's FRoD, so that both make one V from one base: it
runs in float32, as theirs, and U and lambda are solved for in float64.

V is not determined by the base. Its columns have free signs, equal eigenvalues leave whole spaces
free, and another number of threads gives another V altogether (0.2 of its norm apart on two random
layers of 96 x 96). So a V is known by the digest of its bytes; what is computed here is computed on
one thread, once for a base, and kept on disk.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape, Weights
from adapters_core.errors import InvalidAdapter

#: The weight a of the identity, and PEFT's default.
REGULARISATION = 1e-3
#: Layers times width cubed that a basis may cost: 4096 wide with 64 layers, minutes on one core.
MAX_WORK = 1 << 42
#: How far U diag(lambda) V^T may be from the base's weight, of its norm.
TOLERANCE = 1e-4
_SHORTEST = 1e-12  # a column of this length or less has no direction


@dataclass(frozen=True)
class Joint:
    """What the layers of a category share: V `[N, N]` and the digest of its float32 bytes."""

    v: Tensor
    digest: str


@dataclass(frozen=True)
class Factors:
    """One layer's own: U `[M, N]`, and lambda `[N]` as the base has it; both rounded to float32."""

    u: Tensor
    lambda0: Tensor


def category_of(path: str) -> str:
    """Return the role of the layer at `path`: `self_attn_q_proj` of every block is one."""
    names = path.split(".")
    if len(names) == 1 or names[-2].isdigit():
        return names[-1]
    if names[-3:] == ["attention", "output", "dense"]:
        return "attention_output"
    return "_".join(names[-2:])


def members_of(category: str, shapes: Mapping[str, Shape]) -> list[str]:
    """Return the paths in a category, by the number of their block; of equal numbers the last."""
    paths = [path for path in shapes if category_of(path) == category]
    numbered = {_block_of(path, index): path for index, path in enumerate(paths)}
    return [numbered[number] for number in sorted(numbered)]


def _block_of(path: str, index: int) -> int:
    """Return the number of the block at `path`, `index` if it has none."""
    names = path.split(".")
    after = names[names.index("layers") + 1 :][:1] if "layers" in names else []
    return next((int(name) for name in after + names if name.isdigit()), index)


def check_canonical(category: str, shapes: Mapping[str, Shape]) -> None:
    """Refuse a category with a basis that this base does not give, or that costs too much.

    Raises:
        InvalidAdapter: its layers differ in width, or are too wide.
    """
    members = members_of(category, shapes)
    widths = sorted({shapes[path].in_ for path in members})
    if len(widths) > 1:
        raise InvalidAdapter(f"the layers of {category} have widths {widths}: they share no basis")
    work = len(members) * widths[0] ** 3
    if work > MAX_WORK:
        raise InvalidAdapter(
            f"a basis for {len(members)} layers of {category}, {widths[0]} wide, would cost {work} "
            f"steps; at most {MAX_WORK} are taken: save the adapter with save_projection=True",
            "save_projection",
        )


def canonical(base: Weights, category: str) -> Joint:
    """Return the basis of all layers that the base has in a category; kept on disk and shared.

    Raises:
        InvalidAdapter: see `check_canonical`; or the weights have no joint basis.
    """
    check_canonical(category, base.shapes)

    def make() -> Tensor:
        return joint_basis([base.weight(path) for path in members_of(category, base.shapes)])

    def held() -> Joint:
        v = base.kept(f"frod-V-{category}", make)
        return Joint(v, digest_of(v))

    return base.held(("frod", category), held)


def joint_basis(weights: Sequence[Tensor]) -> Tensor:
    """Return V `[N, N]`, float32 on the CPU, of weights `[M_i, N]`; always on one thread.

    Raises:
        InvalidAdapter: the decomposition does not converge, or a weight is not finite.
    """
    with torch.no_grad(), one_thread():
        try:
            v = _joint_basis([weight.to("cpu", torch.float32) for weight in weights])
        except RuntimeError as error:
            raise InvalidAdapter(f"the base's layers have no joint basis: {error}") from error
    if not bool(torch.isfinite(v).all()):
        raise InvalidAdapter("the base's layers have no finite joint basis")
    return v.contiguous()


def _joint_basis(weights: Sequence[Tensor]) -> Tensor:
    stack = torch.cat(list(weights))
    rows, width = stack.shape
    if rows < width:
        return torch.linalg.svd(stack, full_matrices=True).Vh.T
    q, r = torch.linalg.qr(stack)
    eye, mean = torch.eye(width), torch.zeros(width, width)
    for part in q.split([weight.shape[0] for weight in weights]):
        mean += torch.linalg.inv(part.T @ part + REGULARISATION * eye)
    mean /= len(weights)
    return r.T @ torch.linalg.eigh(mean).eigenvectors


def factors(
    base: Weights, path: str, joint: Joint, device: torch.device, dtype: torch.dtype
) -> Factors:
    """Return the factors of the layer at `path` in a basis; shared while they are in use.

    Raises:
        InvalidAdapter: V is singular, or U diag(lambda) V^T is not the base's weight.
    """

    def make() -> Factors:
        try:
            made = factorised(base.weight(path), joint.v)
        except InvalidAdapter as error:
            key = f"base_model.frod_V.{category_of(path)}"
            raise InvalidAdapter(f"{key} on {path}: {error.message}", key) from error
        return Factors(made.u.to(device, dtype), made.lambda0.to(device))

    return base.held(("frod", path, joint.digest, str(device), dtype), make)


@torch.no_grad()
def factorised(weight: Tensor, v: Tensor) -> Factors:
    """Return U `[M, N]` and lambda `[N]` of a weight `[M, N]`, after proving them in float64.

    Raises:
        InvalidAdapter: as `factors`.
    """
    weight, v = weight.to("cpu", torch.float64), v.to("cpu", torch.float64)
    try:
        scaled = torch.linalg.solve(v, weight.T).T  # U diag(lambda)
    except RuntimeError as error:
        raise InvalidAdapter(f"V is singular: {error}") from error
    lengths = scaled.norm(dim=0)
    u = torch.where(lengths > _SHORTEST, scaled / lengths.clamp_min(_SHORTEST), 0.0)
    made = Factors(u.float(), lengths.float())
    again = (made.u.double() * made.lambda0.double()) @ v.T
    wrong = float((again - weight).norm() / weight.norm().clamp_min(_SHORTEST))
    if not wrong <= TOLERANCE:  # a NaN is refused as well
        raise InvalidAdapter(
            f"V does not give back the base's weight: relative error {wrong:.1e}, at most "
            f"{TOLERANCE:.0e}; it is singular or nearly so"
        )
    return made


def digest_of(numbers: Tensor) -> str:
    """Return `sha256:…` over the little-endian bytes, row by row."""
    array = numbers.cpu().contiguous().numpy()
    little = array.astype(array.dtype.newbyteorder("<"))
    return "sha256:" + hashlib.sha256(little.tobytes()).hexdigest()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let this thread's linear algebra run on one thread: the same bits on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
