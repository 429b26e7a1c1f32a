"""The loops around a cosine transform against their torch references and scipy."""

import pytest
import scipy.fft
import torch
from torch import Tensor

from adapters_core.contract.method import PackedLayer
from adapters_core.kernels import located_spectrum, located_spectrum_reference
from adapters_core.kernels.cosine import (
    folded_rows,
    folded_rows_reference,
    turned_rows,
    turned_rows_reference,
    unfold_into,
    unfolded_rows,
    unfolded_rows_reference,
    unturned_rows,
    unturned_rows_reference,
)
from adapters_core.kernels.cosine_blocks import (
    block_spectra,
    block_spectra_reference,
    sparse_spectra,
    sparse_spectra_reference,
)
from adapters_core.transforms.cosine import cosine_table, idct_of_half
from tiny_bases import relative

CPU = torch.device("cpu")
EPS = torch.finfo(torch.float32).eps
#: One wide, two wide, odd, even, and longer than the vectors of any machine.
SIZES = [1, 2, 3, 4, 5, 7, 8, 53, 96, 129, 256]

each_size = pytest.mark.parametrize("size", SIZES)
each_count = pytest.mark.parametrize("num_rows", [0, 1, 6])


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


def turn_of(size: int) -> Tensor:
    turn = cosine_table(size, CPU, torch.float32, dense=False).turn
    assert turn is not None
    return turn


def close(got: Tensor, true: Tensor) -> bool:
    return got.shape == true.shape and torch.allclose(got, true, rtol=0, atol=32 * EPS)


@each_count
@each_size
def test_folding_is_its_reference(num_rows: int, size: int) -> None:
    x = drawn(num_rows, size)
    assert torch.equal(folded_rows(x), folded_rows_reference(x))
    assert torch.equal(unfolded_rows(x), unfolded_rows_reference(x))
    assert torch.equal(unfolded_rows(folded_rows(x)), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_folding_adds_rows_of_zeros(dtype: torch.dtype) -> None:
    x = drawn(5, 7, dtype=dtype)
    got = folded_rows(x, 8)
    assert torch.equal(got[:5], folded_rows_reference(x))
    assert got.shape == (8, 7)
    assert not got[5:].any()


@pytest.mark.parametrize("backwards", [False, True])
def test_unfolding_into_a_block_may_turn_it_round(backwards: bool) -> None:
    x, out = drawn(6, 9), torch.empty(6, 9)
    unfold_into(x, out, backwards)
    assert torch.equal(out.flip(0) if backwards else out, unfolded_rows_reference(x))


@each_count
@each_size
def test_turning_is_its_reference(num_rows: int, size: int) -> None:
    spectrum = drawn(num_rows, size // 2 + 1, dtype=torch.complex64)
    turn = turn_of(size)[:2]
    assert close(turned_rows(spectrum, turn, size), turned_rows_reference(spectrum, turn, size))


@each_count
@each_size
def test_turning_back_is_its_reference(num_rows: int, size: int) -> None:
    x, turn = drawn(num_rows, size), turn_of(size)[2:]
    assert close(unturned_rows(x, turn), unturned_rows_reference(x, turn))


def test_rows_that_do_not_lie_together() -> None:
    x, spectrum = drawn(45, 8).T, drawn(23, 8, dtype=torch.complex64).T
    turn = turn_of(45)
    assert torch.equal(folded_rows(x), folded_rows(x.contiguous()))
    assert torch.equal(unfolded_rows(x), unfolded_rows(x.contiguous()))
    assert torch.equal(unturned_rows(x, turn[2:]), unturned_rows(x.contiguous(), turn[2:]))
    together = turned_rows(spectrum.contiguous(), turn[:2], 45)
    assert torch.equal(turned_rows(spectrum, turn[:2], 45), together)


def test_gradients_go_through_the_references() -> None:
    x, turn = drawn(2, 6).requires_grad_(), turn_of(6)
    for result in (folded_rows(x, 4), unfolded_rows(x), unturned_rows(x, turn[2:]).real):
        assert result.requires_grad


def packed(slots: int, n: int, out: int, in_: int, offset: int) -> PackedLayer:
    """Return a bank's layer of random values and positions, between other layers' numbers."""
    generator = torch.Generator().manual_seed(0)
    buffer = torch.randn(slots, offset + 3 * n + 5, generator=generator)
    positions = buffer[:, offset + n : offset + 3 * n]
    positions[:, :n] = torch.randint(out, (slots, n), generator=generator).float()
    positions[:, n:] = torch.randint(in_, (slots, n), generator=generator).float()
    return PackedLayer(buffer, offset, 3 * n)


@pytest.mark.parametrize(("num_rows", "padding"), [(0, 0), (1, 3), (6, 2), (9, 0)])
@each_size
def test_the_batch_loop_is_its_reference(size: int, num_rows: int, padding: int) -> None:
    layer, turn = packed(4, 40, size, 39, offset=13), turn_of(size)[2:]
    x = drawn(num_rows + padding, 39)
    slots = torch.tensor([2, 2, 0, 3, 3, 3, 1, 2, 0])[:num_rows]
    got = located_spectrum(x, layer, slots, turn, size)
    true = located_spectrum_reference(x, layer, slots, turn, size)
    assert got.shape == (num_rows + padding, size // 2 + 1)
    assert torch.allclose(got, true, rtol=0, atol=128 * EPS)
    assert not got[num_rows:].any()


def test_the_batch_loop_in_float64_goes_through_the_reference() -> None:
    layer, turn = packed(4, 40, 53, 39, offset=0), turn_of(53)[2:].double()
    x, slots = drawn(8, 39), torch.tensor([1, 0, 3])
    got = located_spectrum(x.double(), layer, slots, turn, 53)
    assert got.dtype == torch.complex128
    single = located_spectrum(x, layer, slots, turn.float(), 53)
    assert torch.allclose(single.to(got.dtype), got, rtol=0, atol=128 * EPS)


@each_size
def test_sparse_spectra_are_their_reference_and_scipys(size: int) -> None:
    generator, num_lines = torch.Generator().manual_seed(5), 7
    lines = torch.randint(num_lines, (60,), generator=generator)
    positions = torch.randint(size, (60,), generator=generator)  # many fall on one another
    values, table = drawn(60), cosine_table(size, CPU, torch.float32, dense=False)
    assert table.turn is not None
    turn = table.turn[2:]
    got = sparse_spectra(values, lines, positions, num_lines, turn, size)
    true = sparse_spectra_reference(values, lines, positions, num_lines, turn, size)
    assert torch.allclose(got, true, rtol=0, atol=64 * EPS)
    dense = torch.zeros(num_lines, size, dtype=torch.float64)
    dense.index_put_((lines, positions), values.double(), accumulate=True)
    waves = torch.from_numpy(scipy.fft.idct(dense.numpy(), norm="ortho"))
    assert relative(idct_of_half(got, table), waves) < 16 * EPS


@pytest.mark.parametrize("num_rows", [1, 16, 21])
@each_size
def test_block_spectra_are_their_reference(size: int, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(5)
    columns = torch.randperm(size, generator=generator)[: (size + 1) // 2].sort().values
    waves, turn = drawn(columns.numel(), 40), turn_of(size)[2:]
    out = drawn(num_rows, 2 * turn.shape[1])  # what stood there is overwritten
    got = block_spectra(waves, 3, columns.to(torch.uint32), turn, size, out)
    true = block_spectra_reference(waves, 3, columns, turn, size, num_rows)
    assert got.data_ptr() == out.data_ptr()
    assert close(got, true)
