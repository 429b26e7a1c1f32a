"""The largest singular values and their vectors against torch's whole decomposition in float64."""

import pytest
import torch
from torch import Tensor

from adapters_core.transforms import singular
from adapters_core.transforms.singular import leading_singular

EPS = torch.finfo(torch.float32).eps


def drawn(rows: int, cols: int) -> Tensor:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(rows + cols))


def check(matrix: Tensor, r: int) -> None:
    """Hold values, and the matrix's part in the vectors' spaces, against the whole decomposition.

    The vectors differ by the residual over the gap to the value that is left out.
    """
    u, s, vh = leading_singular(matrix, r)
    whole_u, whole_s, whole_vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    assert torch.allclose(s.double(), whole_s[:r], rtol=4 * EPS, atol=0)
    gap = float((whole_s[r - 1] - whole_s[r]) / whole_s[0])
    most = 4 * (singular.TOLERANCE / gap + EPS)
    made, true = (u * s) @ vh, (whole_u[:, :r] * whole_s[:r]) @ whole_vh[:r]
    assert float((made.double() - true).norm() / true.norm()) < most
    assert torch.allclose(vh @ vh.T, torch.eye(r), atol=8 * EPS)


@pytest.mark.parametrize(("rows", "cols"), [(640, 576), (576, 640), (1500, 520), (300, 200)])
@pytest.mark.parametrize("r", [1, 2, 7])
def test_they_are_those_of_the_whole_decomposition(rows: int, cols: int, r: int) -> None:
    check(drawn(rows, cols), r)


def test_a_wide_matrix_needs_no_whole_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singular, "_whole", None)
    check(drawn(700, 1400), 2)


def test_equal_values_are_found_as_often_as_they_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(singular, "_whole", None)
    left, right = (torch.linalg.qr(drawn(600, width)).Q for width in (600, 599))
    values = torch.linspace(1, 0.5, 599)
    values[:3] = 2.0
    matrix = (left[:, :599] * values) @ right.T
    u, s, vh = leading_singular(matrix, 3)
    assert torch.allclose(s, torch.full((3,), 2.0), rtol=20 * EPS)
    assert torch.allclose(matrix @ vh.T, u * s, atol=40 * EPS)


@pytest.mark.parametrize("matrix", [torch.zeros(600, 600), torch.eye(600), torch.ones(600, 700)])
def test_a_matrix_in_which_the_subspaces_end_is_decomposed_as_well(matrix: Tensor) -> None:
    u, s, vh = leading_singular(matrix, 2)
    true = torch.linalg.svdvals(matrix.double())[:2]
    assert torch.allclose(s.double(), true, atol=1e-5 * float(true[0]) + EPS)
    assert torch.allclose(matrix @ vh.T, u * s, atol=1e-5 * float(true[0]) + EPS)
    assert torch.allclose(vh @ vh.T, torch.eye(2), atol=8 * EPS)
