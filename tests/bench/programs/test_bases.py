"""The program on a base that is quick to decompose: the second start has the basis from disk."""

from pathlib import Path

import pytest

from bench.programs import bases


@pytest.mark.slow
def test_a_row_has_all_figures(tmp_path: Path) -> None:
    row = bases.measured(tmp_path, 512, 2, 4)
    assert 0 < row["from_disk_s"] < 60
    assert row["alone_tokens_s"] > 0
    vs_and_us = 4 * (2 * 512**2 + 2 * (512 + 128) * 512)
    assert row["disk_gb"] * 1e9 == pytest.approx(vs_and_us, rel=0.05)
