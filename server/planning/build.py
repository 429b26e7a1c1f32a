"""Puts the planner together: measures this device and base where `auto` will ask for it."""

from collections.abc import Callable
from dataclasses import dataclass

from adapters_core.contract.method import Method
from adapters_core.layers.canary import usual_methods
from server.adapters.loader import Loader
from server.adapters.modes import ModeSetting
from server.base.resident import ResidentBase
from server.planning.calibration import Calibration, calibrate
from server.planning.linear_times import Record
from server.planning.placement import Placement
from server.planning.planner import Planner
from server.telemetry.observer import Observer

#: Measured first; the others as far as the time reaches.
_FIRST = ("fourierft", "lora", "loca", "waveletft")


@dataclass(frozen=True)
class ModeOptions:
    """The settings that decide about modes.

    Args:
        setting: `auto` chooses; `factored` and `merged` are for all.
        deterministic: keep one mode per adapter.
        merged_bytes: capacity of the merged cache.
        max_running: sequences that run at a time.
        calibration_s: seconds that measuring may take; 0: do not measure, factor everything.
        most_merged: merged adapters that `auto` chooses at most; None: as many as pay.
    """

    setting: ModeSetting
    deterministic: bool
    merged_bytes: int
    max_running: int
    calibration_s: float
    most_merged: int | None = None

    @property
    def plans(self) -> bool:
        """Return whether anything is left to plan."""
        chooses = self.setting == "auto" and not self.deterministic
        return chooses and self.merged_bytes > 0 and self.calibration_s > 0


def placement_of(
    loader: Loader,
    base: ResidentBase,
    options: ModeOptions,
    observer: Observer,
    record: Record | None = None,
    keep: Callable[[Callable[[], Calibration]], Calibration] = lambda measure: measure(),
) -> tuple[Placement, Calibration | None]:
    """Return what gives requests their modes, and what was measured for it.

    Args:
        loader: of adapters.
        base: on its device.
        options: that decide about modes.
        observer: receives every decision.
        record: records on the base's device, where steps are recorded.
        keep: returns what was measured before, or measures.
    """
    if not options.plans:
        fixed = Placement(loader, options.setting, None, None, options.deterministic, observer)
        return fixed, None
    methods = sorted(usual_methods(), key=_usual_first)
    most_s = options.calibration_s
    measured = keep(lambda: calibrate(base.injection, base.basis_cache, methods, most_s, record))
    item_bytes = next(iter(base.injection.linears.values())).golden().element_size()
    placement = Placement(
        loader,
        options.setting,
        Planner(options.merged_bytes, options.max_running, most=options.most_merged),
        lambda layout: measured.costs_of(layout, item_bytes),
        observer=observer,
    )
    return placement, measured


def _usual_first(method: Method) -> int:
    return _FIRST.index(method.name) if method.name in _FIRST else len(_FIRST)
