"""Positions are data: the first n of torch's permutation, found in O(n)."""

import pytest
import torch

from adapters_core.positions import seeded
from adapters_core.positions.seeded import flat_positions, positions_digest

SHAPES = [(96, 96), (45, 77), (768, 768), (1024, 300), (7, 1), (1, 13), (251, 509)]

#: The first positions that PEFT's generator gives; (seed, size) -> positions.
REFERENCE = {
    (777, 4096 * 4096): [1374311, 8240085, 6766295, 6474818, 14786199],
    (777, 768 * 768): [391271, 183699, 413551, 384200, 435559],
    (777, 1024 * 4096): [1374311, 4046277, 2572455, 2280976],
    (2024, 768 * 768): [466568, 254852, 455206],
}


def permutation(seed: int, size: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [777, 2024, 0, 2**32 - 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_positions_are_the_first_of_torchs_permutation(shape: tuple[int, int], seed: int) -> None:
    size = shape[0] * shape[1]
    n = min(size, 1000)
    assert torch.equal(flat_positions(seed, n, size), permutation(seed, size)[:n])


def test_all_positions_are_the_whole_permutation() -> None:
    assert torch.equal(flat_positions(777, 5000, 5000), permutation(777, 5000))


def test_one_position_of_one_cell() -> None:
    assert flat_positions(777, 1, 1).tolist() == [0]


@pytest.mark.parametrize(("seed", "size"), REFERENCE)
def test_reference_values(seed: int, size: int) -> None:
    known = REFERENCE[seed, size]
    assert flat_positions(seed, len(known), size).tolist() == known


def test_fewer_positions_are_a_prefix_of_more() -> None:
    assert torch.equal(flat_positions(5, 40, 9216), flat_positions(5, 1000, 9216)[:40])


@pytest.mark.parametrize(("n", "size"), [(0, 10), (-1, 10), (11, 10), (1, 0)])
def test_impossible_counts_are_refused(n: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"n = {n} is not in 1..{size}"):
        flat_positions(777, n, size)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_seeds_that_numpy_cannot_take_give_torchs_positions(seed: int) -> None:
    assert torch.equal(flat_positions(seed, 50, 3465), permutation(seed, 3465)[:50])


def test_large_sizes_come_from_torch_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded, "LARGE", 3465)
    monkeypatch.setattr(seeded, "_first_of_shuffle", None)  # would fail if it were called
    assert torch.equal(flat_positions(777, 50, 3465), permutation(777, 3465)[:50])


def test_large_is_where_torch_changes_its_algorithm() -> None:
    assert seeded.LARGE == (2**32 - 1) // 20 == 214_748_364


def test_the_digest_never_changes() -> None:
    assert positions_digest(flat_positions(777, 1000, 768 * 768)) == PINNED[768, 768]
    assert positions_digest(flat_positions(777, 1000, 45 * 77)) == PINNED[45, 77]


def test_the_digest_depends_on_order() -> None:
    flat = flat_positions(777, 10, 100)
    assert positions_digest(flat) != positions_digest(flat.flip(0))


#: Written into files by earlier builds: these may never change.
PINNED = {
    (768, 768): "sha256:47b4de12ddb3cd3d482f69143765aee881b6313c7deedcce22ff10c2f7b6ed3a",
    (45, 77): "sha256:2775962fea13ad303bab3652a8611440d3fd2d204231b696b72af10c94a5f916",
}
