"""A calibration as a document, so that the next start need not measure again."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.planning.calibration import Calibration
from server.planning.costs import Curve
from server.planning.linear_times import Role

#: Curves by role, as pairs: a document's keys are texts.
_Curves = list[tuple[Role, Curve]]


@dataclass(frozen=True)
class KeptCalibration:
    """The fields of `Calibration`; roles are parts of pairs instead of keys."""

    own: _Curves
    split: _Curves
    token: dict[str, _Curves]
    prompt: dict[str, _Curves]
    lengths: list[tuple[tuple[str, Role], int]]
    copy_s: float
    seconds: float

    @classmethod
    def of(cls, given: Calibration) -> "KeptCalibration":
        """Return what is kept of a calibration."""
        return cls(
            list(given.own.items()),
            list(given.split.items()),
            _pairs(given.token),
            _pairs(given.prompt),
            list(given.lengths.items()),
            given.copy_s,
            given.seconds,
        )

    @property
    def calibration(self) -> Calibration:
        """Return the calibration that was kept."""
        return Calibration(
            dict(self.own),
            dict(self.split),
            {name: dict(curves) for name, curves in self.token.items()},
            {name: dict(curves) for name, curves in self.prompt.items()},
            dict(self.lengths),
            self.copy_s,
            self.seconds,
        )


def _pairs(given: Mapping[str, Mapping[Role, Curve]]) -> dict[str, _Curves]:
    return {name: list(curves.items()) for name, curves in given.items()}
