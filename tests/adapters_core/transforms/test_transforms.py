"""The cosine transforms against scipy and the defining sum, by matrix and by Fourier transform."""

import math
from fractions import Fraction

import pytest
import scipy.fft
import torch

from adapters_core.contract.rows import pad_rows
from adapters_core.transforms.cosine import CosineTable, cosine_table, cosines, dct, idct
from tiny_bases import relative

CPU = torch.device("cpu")
#: One wide, odd, prime, powers of two, and widths of real models.
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 16, 31, 32, 53, 77, 96, 128, 129, 180, 1009, 1024, 2048, 11008]
WAYS = [(size, dense) for size in SIZES for dense in (True, False) if size < 1024 or not dense]

each_way = pytest.mark.parametrize(("size", "dense"), WAYS)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def table_of(
    size: int, dense: bool | None = None, dtype: torch.dtype = torch.float32
) -> CosineTable:
    return cosine_table(size, CPU, dtype, dense)


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


def bound(size: int) -> int:
    """Return the roundings that may add up in a number, in units of the dtype's eps.

    A transform is a chain of sums, one for every prime factor and as long as that factor.
    """
    rest, total, factor = size, 0, 2
    while rest > 1:
        while rest % factor:
            factor += 1
        rest, total = rest // factor, total + factor
    return max(6, total)


@each_dtype
@each_way
def test_both_are_scipys(size: int, dense: bool, dtype: torch.dtype) -> None:
    x, table = drawn(3, size, dtype=dtype), table_of(size, dense, dtype)
    for ours, theirs in ((dct, scipy.fft.dct), (idct, scipy.fft.idct)):
        got = ours(x, table)
        assert got.dtype == dtype
        true = torch.from_numpy(theirs(x.double().numpy(), type=2, norm="ortho"))
        assert relative(got, true) < bound(size) * torch.finfo(dtype).eps


@each_way
def test_one_undoes_the_other(size: int, dense: bool) -> None:
    x, table = drawn(6, size, dtype=torch.float64), table_of(size, dense, torch.float64)
    limit = 2 * bound(size) * torch.finfo(torch.float64).eps
    assert relative(idct(dct(x, table), table), x) < limit
    assert relative(dct(idct(x, table), table), x) < limit


def test_the_sum_written_out() -> None:
    x = [0.5, -2.0, 3.0, 1.0, 0.25, -1.5]
    size = len(x)
    for k in range(size):
        scale = math.sqrt((1 if k == 0 else 2) / size)
        angles = [math.pi * (2 * t + 1) * k / (2 * size) for t in range(size)]
        true = scale * sum(v * math.cos(a) for v, a in zip(x, angles, strict=True))
        for dense in (True, False):
            row = dct(torch.tensor(x, dtype=torch.float64), table_of(size, dense, torch.float64))
            assert math.isclose(float(row[k]), true, abs_tol=1e-14)


def test_phases_are_exact_at_the_end_of_a_wide_layer() -> None:
    """(2t + 1) k is some 4e8 there: no float32."""
    size = 14336
    got = cosines(torch.tensor([size - 1]), torch.tensor([size - 1]), size)
    turns = Fraction((2 * size - 1) * (size - 1), 4 * size) % 1
    true = math.sqrt(2 / size) * math.cos(2 * math.pi * float(turns))
    assert math.isclose(float(got), true, rel_tol=1e-14)


@pytest.mark.parametrize("dense", [True, False])
def test_gradients_are_the_transposes(dense: bool) -> None:
    table = table_of(7, dense, torch.float64)
    x = drawn(2, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows: dct(rows, table), x)
    assert torch.autograd.gradcheck(lambda rows: idct(rows, table), x)


@pytest.mark.parametrize("dense", [True, False])
def test_rows_that_do_not_lie_together(dense: bool) -> None:
    table, x = table_of(45, dense), drawn(45, 8).T
    for transform in (dct, idct):
        assert relative(transform(x, table), transform(x.contiguous(), table)) < 1e-6


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("size", [1, 31, 32, 96, 128, 129, 180, 384, 1024, 11008])
def test_a_padded_rows_bits_do_not_depend_on_its_neighbours(size: int, threads: int) -> None:
    table, x = table_of(size), drawn(37, size)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for transform in (dct, idct):
            whole = transform(pad_rows(x), table)
            for start, stop in [(0, 1), (5, 7), (3, 12), (36, 37), (1, 30)]:
                part = transform(pad_rows(x[start:stop]), table)
                assert torch.equal(part[: stop - start], whole[start:stop]), (start, stop)
    finally:
        torch.set_num_threads(before)
