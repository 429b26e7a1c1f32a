"""Checks are made once for a machine, versions and base; a part of them is tried at every start."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import tiny
from adapters_core.contract.layer import Shape
from adapters_core.contract.rows import row_multiple, set_row_multiple
from adapters_core.errors import CanaryFailed
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import CanaryReport
from server.base.findings import Findings
from server.base.loading import Base, make_base
from server.base.phases import Phases
from server.planning.calibration import Calibration
from server.planning.costs import Curve
from server.processor import kept_checks
from server.processor.kept_checks import KeptChecks
from server.processor.row_check import RowReport
from server_parts import CPU

SQUARE = Shape(96, 96)


@pytest.fixture(scope="module")
def base() -> Base:
    return make_base(tiny.model("llama"), tiny.tokenizer(), "tiny")


@pytest.fixture
def start(base: Base, tmp_path: Path) -> Iterator[Callable[..., KeptChecks]]:
    """Return what begins another start on the same findings."""

    def begin(depends: str = "") -> KeptChecks:
        findings = Findings(tmp_path, ("key",), Phases())
        return KeptChecks(base, findings, depends, lambda share: None)

    before = row_multiple()
    yield begin
    set_row_multiple(before)


class Canary:
    """Stands in for the canary: counts what was checked at each call."""

    def __init__(self, *answers: CanaryReport | CanaryFailed) -> None:
        self.answers, self.sizes = list(answers), list[int]()

    def __call__(self, probes, shapes, bases, report=None) -> CanaryReport:
        self.sizes.append(len(list(probes)) * len(list(shapes)))
        answer = self.answers.pop(0)
        if isinstance(answer, CanaryFailed):
            raise answer
        return answer


ALL = CanaryReport(40, (("fourierft", SQUARE),))
RIGHT = CanaryReport(1, ())
WRONG = CanaryReport(1, (("loca", SQUARE),))


def test_a_later_start_enters_the_routes_and_checks_one_method_on_one_shape(
    start: Callable[..., KeptChecks], monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = Canary(ALL, RIGHT)
    monkeypatch.setattr(kept_checks, "run_canary", canary)
    assert start().canary(BasisCache(CPU)) == ALL
    bases = BasisCache(CPU)
    assert start().canary(bases) == ALL
    assert canary.sizes[0] > canary.sizes[1] == 1
    assert bases._dtypes == {("fourierft", SQUARE): torch.float64}


@pytest.mark.parametrize("found", [WRONG, CanaryFailed("wrong")])
def test_a_machine_that_computes_otherwise_now_is_checked_as_a_whole(
    start: Callable[..., KeptChecks],
    monkeypatch: pytest.MonkeyPatch,
    found: CanaryReport | CanaryFailed,
) -> None:
    canary = Canary(RIGHT, found, ALL)
    monkeypatch.setattr(kept_checks, "run_canary", canary)
    start().canary(BasisCache(CPU))
    assert start().canary(BasisCache(CPU)) == ALL
    assert canary.sizes[0] == canary.sizes[2] > 1


def test_rows_that_move_now_are_checked_as_a_whole(
    start: Callable[..., KeptChecks], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RowReport] = []

    def check(*_: object) -> RowReport:
        set_row_multiple(8)
        made.append(RowReport(None, 8, may_improve=True))
        return made[-1]

    monkeypatch.setattr(kept_checks, "check_products", check)
    for moved, count in ((None, 1), (None, 1), ("q_proj", 2), (None, 2)):
        set_row_multiple(4)
        monkeypatch.setattr(kept_checks, "moving_product", lambda *_, moved=moved: moved)
        assert start().products(BasisCache(CPU)) == made[-1]
        assert (len(made), row_multiple()) == (count, 8)


def test_other_settings_measure_for_themselves_and_a_calibration_comes_back_as_it_was(
    start: Callable[..., KeptChecks],
) -> None:
    role, curve = ("q_proj", SQUARE), Curve(((4, 0.25), (16, 0.5)))
    measured = Calibration(
        {role: curve}, {role: curve}, {"lora": {role: curve}}, {}, {("lora", role): 9}, 1e-9, 0.5
    )
    assert start("a").calibration(lambda: measured) == measured
    assert start("a").calibration(lambda: pytest.fail("measured again")) == measured
    other = Calibration({}, {}, {}, {}, {}, 2e-9, 0.1)
    assert start("b").calibration(lambda: other) == other
