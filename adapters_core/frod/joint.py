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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.errors import InvalidAdapter
from adapters_core.frod.factors import Factors

#: The weight a of the identity, and PEFT's default.
REGULARISATION = 1e-3
#: Layers times width cubed that a basis may cost: 4096 wide with 64 layers, minutes on one core.
MAX_WORK = 1 << 42
#: Inverses that are made at once on a processor; each takes two matrices of `[N, N]` more.
_AT_ONCE = 2


@dataclass(frozen=True)
class Joint:
    """What the layers of a category share.

    Args:
        v: `[N, N]`.
        digest: of its float32 bytes.
        own: path -> what a layer has alone, where it was made with V.
    """

    v: Tensor
    digest: str
    own: Mapping[str, Factors] = field(default_factory=dict)


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


def joint_basis(
    weights: Iterable[Tensor], did: Callable[[float], None] = lambda work: None
) -> Tensor:
    """Return V `[N, N]`, float32 on the CPU, of weights `[M_i, N]`; made where these are.

    On a CPU it is made on one thread. All weights are in memory twice meanwhile, as float32.

    Args:
        weights: read once, in order.
        did: told the multiplications that each piece of the work was, about.

    Raises:
        InvalidAdapter: the decomposition does not converge, or a weight is not finite.
        OutOfMemoryError: the card has no room.
    """
    with torch.no_grad(), one_thread():
        try:
            v = _joint_basis([weight.to(torch.float32) for weight in weights], did).cpu()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise InvalidAdapter(f"the base's layers have no joint basis: {error}") from error
    if not bool(torch.isfinite(v).all()):
        raise InvalidAdapter("the base's layers have no finite joint basis")
    return v.contiguous()


def _joint_basis(weights: list[Tensor], did: Callable[[float], None]) -> Tensor:
    stack, heights = torch.cat(weights), [weight.shape[0] for weight in weights]
    weights.clear()
    rows, width = stack.shape
    if rows < width:
        return torch.linalg.svd(stack, full_matrices=True).Vh.T
    q, r = torch.linalg.qr(stack)
    del stack
    did(qr_work(rows, width))
    mean = torch.zeros(width, width, device=r.device)
    for part, inverse in _inverses(q.split(heights)):
        mean += inverse
        did(mean_work(part.shape[0], width))
    mean /= len(heights)
    return r.T @ torch.linalg.eigh(mean).eigenvectors


def _inverses(parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each part Q_i `[M_i, N]` with (Q_i^T Q_i + a I)^-1, in order.

    Several are made at once, each on one thread as if it were alone: the bits are the same, and a
    core that is free is used.
    """
    at_once = 1 if parts[0].is_cuda else _AT_ONCE
    # Not `one_thread`: MKL's number is the process's, and one that ends would put back another's.
    with ThreadPoolExecutor(at_once, "frod", torch.set_num_threads, (1,)) as threads:
        for first in range(0, len(parts), at_once):
            some = parts[first : first + at_once]
            yield from zip(some, list(threads.map(_inverse, some)), strict=True)


def _inverse(part: Tensor) -> Tensor:
    with torch.no_grad():
        eye = torch.eye(part.shape[1], device=part.device)
        return torch.linalg.inv(part.T @ part + REGULARISATION * eye)


def qr_work(rows: int, width: int) -> int:
    """Return the multiplications of a QR decomposition with both factors, about."""
    return 2 * rows * width**2


def mean_work(rows: int, width: int) -> int:
    """Return the multiplications of one layer's part of the mean, about."""
    return rows * width**2 + 2 * width**3


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
