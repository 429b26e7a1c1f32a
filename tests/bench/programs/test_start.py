"""The program on a small base: a later start takes what the first has found out."""

from pathlib import Path

import pytest

from bench.programs import start
from overtone_client import InvalidArgument


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_later_start_has_fewer_phases_and_takes_less(tmp_path: Path) -> None:
    base = start.save_base(tmp_path / "base", 1)
    alone, first, second = start.measure(base, tmp_path, 1)
    assert alone["more_s"] == 0
    assert alone["processor_s"] > 0
    assert "checking the transforms" in first["phases"]
    assert set(second["phases"]) < set(first["phases"])
    assert second["phases"]["loading the base"] > 0
    assert second["processor_s"] < first["processor_s"]
    assert second["meets"] == (second["more_s"] <= 2)


def test_a_wrong_number_is_an_error() -> None:
    with pytest.raises(InvalidArgument, match="1 or more"):
        start.main(["--rounds", "0"])
