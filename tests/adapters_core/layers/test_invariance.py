"""Rows that depend on their neighbours are found, and this machine's do not under its setting."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import adapters_core.methods  # noqa: F401  (registers what `usual_methods` returns)
import tiny
from adapters_core.contract.method import Shape
from adapters_core.contract.rows import pad_rows, row_multiple, set_row_multiple
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import usual_methods
from adapters_core.layers.invariance import (
    RowProduct,
    linear_product,
    moving_product,
    products_of,
    products_of_methods,
)

CPU = torch.device("cpu")


@pytest.fixture
def multiple() -> Iterator[None]:
    before = row_multiple()
    yield
    set_row_multiple(before)


def by_count(rows: Tensor, first: int) -> Tensor:
    """A kernel for few rows that rounds otherwise than the one for many."""
    return rows * (1 + torch.finfo(torch.float32).eps * (len(rows) < 10))


def by_position(rows: Tensor, first: int) -> Tensor:
    """A kernel that rounds the last rows of a batch otherwise."""
    tail = torch.arange(len(rows)) >= len(rows) - len(rows) % 16
    return rows * (1 + torch.finfo(torch.float32).eps * tail)[:, None]


@pytest.mark.parametrize("fault", [by_count, by_position])
def test_a_product_whose_rows_move_is_named(fault: object) -> None:
    right = linear_product("right", torch.randn(8, 8))
    wrong = RowProduct("wrong", 8, 1.0, (4, 8, 20, 36), fault)  # type: ignore[arg-type]
    assert moving_product([right], CPU) is None
    assert moving_product([right, wrong, right], CPU) == "wrong"


@pytest.mark.parametrize("threads", [1, 2])
def test_linears_of_this_machine_hold_under_its_setting(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for shape in ((96, 96), (256, 96), (500, 128), (128, 344)):
            for is_transposed in (False, True):
                product = linear_product("linear", torch.randn(shape), is_transposed)
                assert moving_product([product], CPU) is None, shape
    finally:
        torch.set_num_threads(before)


def test_every_methods_products_hold_under_its_setting() -> None:
    methods = usual_methods()
    assert len(methods) > 5
    products = list(products_of_methods(methods, [Shape(96, 64), Shape(33, 96)], BasisCache(CPU)))
    assert len(products) == 4 * len(methods)
    assert moving_product(products, CPU) is None


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_every_distinct_linear_is_tried_once_the_output_embedding_too(shape: str) -> None:
    model = tiny.model(shape)
    products = list(products_of(model))
    shapes = [product.name.partition(" ")[2] for product in products]
    vocabulary = model.config.get_text_config().vocab_size
    assert len(set(shapes)) == len(shapes)
    assert any(name.startswith(f"({vocabulary}, ") for name in shapes)


def test_row_counts_are_multiples_within_the_budget(multiple: None) -> None:
    set_row_multiple(16)
    cheap, dear = (linear_product("", torch.zeros(n, 4)) for n in (8, 4_000_000))
    assert all(count % 16 == 0 for count in (*cheap.counts, *dear.counts))
    assert max(cheap.counts) <= 512
    assert len(cheap.counts) > len(dear.counts) >= 3


def test_rows_are_padded_to_the_multiple_that_is_set(multiple: None) -> None:
    assert len(pad_rows(torch.ones(5, 2))) == 8
    set_row_multiple(16)
    assert len(pad_rows(torch.ones(5, 2))) == 16
    assert len(pad_rows(torch.ones(16, 2))) == 16
