"""The checks and measurements of a start: made once for a machine, its versions and a base.

Their results are kept (server/base/findings.py). A start that finds results tries a random small
part of them again: one method's transforms on one of the base's shapes, and one of its linears.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from pydantic import TypeAdapter

from adapters_core.contract.method import Shape
from adapters_core.contract.rows import row_multiple, set_row_multiple
from adapters_core.errors import CanaryFailed
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import CanaryReport, run_canary, usual_methods
from adapters_core.layers.invariance import moving_product, products_of
from server.base.findings import Findings
from server.base.loading import Base
from server.encoding.encoder import Encoder
from server.engine.engine import Engine
from server.planning.calibration import Calibration
from server.planning.kept_calibration import KeptCalibration
from server.processor.row_check import RowReport, check_products, check_steps, unchecked

_CANARY, _ROWS, _COMPARED = TypeAdapter(CanaryReport), TypeAdapter(RowReport), TypeAdapter(bool)
_COSTS = TypeAdapter(KeptCalibration)


@dataclass(frozen=True)
class KeptChecks:
    """The checks of one start.

    Args:
        base: what is served.
        findings: of earlier starts with it.
        depends: the settings on which steps and their costs depend.
        report: told how much of a check is done, 0..1.
    """

    base: Base
    findings: Findings
    depends: str
    report: Callable[[float], None]

    def canary(self, bases: BasisCache) -> CanaryReport:
        """Return what the canary has found, with its routes in force.

        Raises:
            CanaryFailed: this machine computes the transforms wrongly.
        """
        shapes = sorted(set(self.base.spec.targets.values()))
        return self.findings.found(
            "checking the transforms",
            _CANARY,
            lambda: run_canary(usual_methods(), shapes, bases, self.report),
            holds=lambda report: _transforms_hold(report, shapes, bases),
        )

    def products(self, basis_cache: BasisCache) -> RowReport:
        """Return whether the products of steps keep a row's bits; measured on a CPU alone.

        The multiple of rows that they run over is in force afterwards.
        """
        if basis_cache.device.type != "cpu":
            return unchecked(basis_cache.device)
        model, shapes = self.base.model, self.base.spec.targets.values()
        return self.findings.found(
            "checking that rows keep their bits",
            _ROWS,
            lambda: check_products(model, usual_methods(), shapes, basis_cache),
            holds=self._rows_hold,
        )

    def engine(self, make: Callable[[bool], Engine]) -> Engine:
        """Return the engine; its logits are compared with transformers' own if none were so far.

        Args:
            make: makes it, told whether an earlier start has compared them.
        """
        made: list[Engine] = []

        def compare() -> bool:
            made.append(make(False))
            return True

        self.findings.found(
            "comparing logits with transformers' own", _COMPARED, compare, depends=self.depends
        )
        return made[0] if made else make(True)

    def steps(self, rows: RowReport, computes: Engine | Encoder) -> RowReport:
        """Return whether whole steps keep a row's bits, where their products do."""
        return self.findings.found(
            "checking that steps keep their bits",
            _ROWS,
            partial(check_steps, rows, computes, self.base),
            depends=self.depends,
        )

    def calibration(self, measure: Callable[[], Calibration]) -> Calibration:
        """Return what rows cost here."""
        kept = self.findings.found(
            "measuring rows' costs",
            _COSTS,
            lambda: KeptCalibration.of(measure()),
            depends=self.depends,
        )
        return kept.calibration

    def _rows_hold(self, report: RowReport) -> bool:
        """Try one linear over the multiple that was kept; where rows move, nothing is promised."""
        before = row_multiple()
        set_row_multiple(report.multiple)
        if not report.holds:
            return True
        tried = random.choice(list(products_of(self.base.model)))
        if moving_product([tried], torch.device("cpu")) is None:
            return True
        set_row_multiple(before)
        return False


def _transforms_hold(report: CanaryReport, shapes: list[Shape], bases: BasisCache) -> bool:
    """Enter the routes that were kept, and check one method on one shape."""
    for method, shape in report.rerouted:
        bases.use_float64(method, shape)
    try:
        return not run_canary(
            [random.choice(usual_methods())], [random.choice(shapes)], bases
        ).rerouted
    except CanaryFailed:
        return False
