"""Does a row's result depend on the rows beside it? Measured on this machine, never assumed.

Libraries choose a product's kernel by the number of rows, and another kernel sums in another
order. Whether a row keeps its bits depends on the processor, the library's setting, the number of
threads and the shapes; here each product of a model, and each method's mixed-batch product, is run
over different numbers of rows and compared bit by bit.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.contract.rows import row_multiple
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache

#: Numbers of rows that are tried, in multiples of `row_multiple()`.
_COUNTS = (1, 2, 3, 5, 8, 16, 33, 64)
#: A method pads its rows itself, so that any number is tried.
_METHOD_COUNTS = (1, 3, 8, 13, 32)
_METHOD_ROWS = 48
_MAX_ROWS = 512
#: Floating-point operations that one product may take in all.
_BUDGET = 12e9


@dataclass(frozen=True)
class RowProduct:
    """A product of rows.

    Args:
        name: what it is, for a message.
        width: numbers in a row.
        cost: floating-point operations of a row.
        counts: numbers of rows to try, ascending.
        compute: rows `[T, width]` and the first one's number -> `[T, ...]`.
    """

    name: str
    width: int
    cost: float
    counts: tuple[int, ...]
    compute: Callable[[Tensor, int], Tensor]


def products_of(model: nn.Module) -> Iterator[RowProduct]:
    """Yield one product for each distinct shape and layout of the model's linears."""
    seen = set()
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear | Conv1D):
            continue
        weight, is_transposed = module.weight, isinstance(module, Conv1D)
        assert isinstance(weight, Tensor)
        key = (tuple(weight.shape), is_transposed, weight.dtype)
        if key not in seen:
            seen.add(key)
            yield linear_product(path, weight.detach(), is_transposed)


def linear_product(name: str, weight: Tensor, is_transposed: bool = False) -> RowProduct:
    """Return the product with a weight `[out, in]`, or `[in, out]` as GPT-2 stores it."""
    product = torch.mm if is_transposed else F.linear
    width = weight.shape[0 if is_transposed else 1]
    return RowProduct(
        f"{name} {tuple(weight.shape)}",
        width,
        2.0 * weight.numel(),
        _counts(2.0 * weight.numel()),
        lambda rows, _: product(rows.to(weight.dtype), weight),
    )


def _counts(cost: float) -> tuple[int, ...]:
    """Return the numbers of rows that the budget allows, ascending; at least three."""
    counts: list[int] = []
    multiple, spent = row_multiple(), 0.0
    for count in (multiple * n for n in _COUNTS):
        spent += 2 * count * cost
        if count <= _MAX_ROWS and (spent <= _BUDGET or len(counts) < 3):
            counts.append(count)
    return tuple(sorted(counts))


def products_of_methods(
    methods: Iterable[Method], shapes: Iterable[Shape], bases: BasisCache
) -> Iterator[RowProduct]:
    """Yield each method's product on each shape: single tokens, and a piece of a prompt."""
    for method in methods:
        for shape in sorted(set(shapes)):
            yield from _method_products(method.fitted(shape), shape, bases)


def _method_products(method: Method, shape: Shape, bases: BasisCache) -> Iterator[RowProduct]:
    generator = torch.Generator().manual_seed(2)
    bank = Bank(Layout.of({"": method}, {"": shape}), bases, slots=2)
    slots = []
    for _ in range(2):
        layer = {
            name: torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
            for name, t in method.init(shape, generator).items()
        }
        slots.append(bank.add(bank.pack({"": method}, {"": layer})))

    def single(rows: Tensor, first: int) -> Tensor:
        own = torch.tensor([slots[(first + i) % 2] for i in range(len(rows))])
        return _applied(bank, rows, Rows(own.to(rows.device), len(rows)))

    def piece(rows: Tensor, _: int) -> Tensor:
        own = torch.full((len(rows),), slots[0], device=rows.device)
        return _applied(bank, rows, Rows(own, 0, (Segment(0, len(rows), slots[0]),)))

    name = f"{method.name} on {shape.out} x {shape.in_}"
    counts = (*_METHOD_COUNTS, _METHOD_ROWS)
    yield RowProduct(f"{name}, single tokens", shape.in_, 0.0, counts, single)
    yield RowProduct(f"{name}, a prompt", shape.in_, 0.0, counts, piece)


def _applied(bank: Bank, rows: Tensor, plan: Rows) -> Tensor:
    update = bank.apply("", rows, plan)
    assert update is not None
    return update


@torch.inference_mode()
def moving_product(products: Iterable[RowProduct], device: torch.device) -> str | None:
    """Return the name of the first product whose rows depend on their neighbours; None if none.

    A row is computed at the front and at the end of each number of rows.
    """
    for product in products:
        if not _holds(product, device):
            return product.name
    return None


def _holds(product: RowProduct, device: torch.device) -> bool:
    *fewer, total = product.counts
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(total, product.width, generator=generator).to(device)
    expected = product.compute(rows, 0)
    for count in fewer:
        for first in (0, total - count):
            got = product.compute(rows[first : first + count].contiguous(), first)
            if not torch.equal(got, expected[first : first + count]):
                return False
    return True
