"""The parts of a running server: built once, closed in reverse order."""

import logging
import time
from dataclasses import dataclass, field

import torch

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.spec import weights_of
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import CanaryReport
from adapters_core.layers.inject import inject
from adapters_core.malloc import keep_freed_memory
from registry import Registry
from registry.quotas.mirror import LimitsMirror
from server.adapters.basis_processes import BasisProcesses
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.modes import Mode, ModeSetting
from server.adapters.pins import Pins
from server.base.kinds import USES
from server.base.loading import Base
from server.base.resident import ResidentBase
from server.base.room import Room, give_back, room_on
from server.base.sampling_defaults import SamplingDefaults, sampling_defaults
from server.base.starts import Starts
from server.constraints.compiler import Constraints
from server.encoding.build import Encoding, encoding_of
from server.encoding.head_switch import plain_heads
from server.encoding.request import Limits
from server.engine.engine import Engine
from server.engine.recordings import recordings_on
from server.engine.static_step import MAX_MERGED
from server.errors import InvalidRequest
from server.generation.delivery import Deliveries
from server.generation.detokenizer import Text
from server.generation.runtime import Runtime
from server.generation.tokenizing import Tokenizing
from server.planning.build import ModeOptions, placement_of
from server.planning.calibration import Calibration
from server.planning.placement import Placement
from server.processor.kept_checks import KeptChecks
from server.processor.row_check import RowReport
from server.rates.meter import Meter
from server.scheduling.page_pool import PagePool
from server.scheduling.scheduler import Scheduler
from server.scheduling.spare_rows import SpareRows
from server.settings import Settings
from server.telemetry.metrics import Metrics

PAGE_SIZE = 32
#: More pages of the cache change nothing that a start checks.
_PAGES_OF_CHECKS = 4096
_LOG = logging.getLogger("overtone")


@dataclass(frozen=True)
class Generating:
    """What serves a base that generates text."""

    text: Text
    engine: Engine
    runtime: Runtime
    deliveries: Deliveries
    placement: Placement
    constraints: Constraints
    calibration: Calibration | None = None

    @property
    def worker(self) -> Runtime:
        """Return the thread that computes."""
        return self.runtime


@dataclass(frozen=True)
class Service:
    """The parts that routes use; `serving` is what this kind of base needs."""

    settings: Settings
    base: Base
    registry: Registry
    loader: Loader
    pins: Pins
    resident: ResidentBase
    basis_processes: BasisProcesses
    room: Room
    metrics: Metrics
    canary: CanaryReport
    rows: RowReport
    max_length: int
    started: float
    serving: Generating | Encoding
    tenant_limits: LimitsMirror
    meter: Meter
    sampling_defaults: SamplingDefaults = SamplingDefaults()
    tokenizing: Tokenizing = field(default_factory=Tokenizing)

    @property
    def text(self) -> Text:
        """Return the tokenizer of a base that generates."""
        return self._generating.text

    @property
    def runtime(self) -> Runtime:
        """Return the engine's loop of a base that generates."""
        return self._generating.runtime

    @property
    def deliveries(self) -> Deliveries:
        """Return the deliveries of tokens to the event loop."""
        return self._generating.deliveries

    @property
    def constraints(self) -> Constraints:
        """Return what compiles constraints on answers of a base that generates."""
        return self._generating.constraints

    @property
    def calibration(self) -> Calibration | None:
        """Return the measured costs of this device; None where nothing is planned."""
        return self.serving.calibration if isinstance(self.serving, Generating) else None

    def mode_of(self, digest: str) -> Mode:
        """Return the mode in which a request for `digest` would be served now."""
        if isinstance(self.serving, Generating):
            return self.serving.placement.mode_of(digest)
        return _limits(self.settings, self.room).mode

    @property
    def is_alive(self) -> bool:
        """Return whether the thread that computes runs."""
        return self.serving.worker.is_alive

    @property
    def encoding(self) -> Encoding:
        """Return what serves a classifier or an embedder.

        Raises:
            InvalidRequest: the base is another kind; the message says what it serves.
        """
        if not isinstance(self.serving, Encoding):
            raise self.wrong_base()
        return self.serving

    @property
    def _generating(self) -> Generating:
        if not isinstance(self.serving, Generating):
            raise self.wrong_base()
        return self.serving

    def wrong_base(self, param: str = "model") -> InvalidRequest:
        """Return the error of a request that this kind of base cannot serve."""
        kind = self.base.kind
        message = f"the base {self.base.spec.name!r} is a {kind}; {USES[kind]}"
        return InvalidRequest(message, param)

    def close(self) -> None:
        """End the loop, the threads that tokenize, the loaders and the registry, in this order."""
        self.serving.worker.stop()
        self.tokenizing.close()
        if isinstance(self.serving, Generating):
            self.serving.constraints.close()
        self.basis_processes.close()
        self.loader.close()
        self.registry.close()
        give_back(_device_of(self.base))


def build(
    settings: Settings, base: Base, registry: Registry, metrics: Metrics, starts: Starts
) -> Service:
    """Return a started service.

    What takes long is found out once for a machine, its versions and a base (`starts`).

    Raises:
        NoRoom: the device's memory is too small.
        CanaryFailed: this machine computes the transforms wrongly.
        UnsupportedAttention, UnsupportedBase: this base would be answered wrongly.
        BaseNotLoadable: its generation_config.json has a value out of range.
    """
    keep_freed_memory()
    takes_config = base.kind == "causal LM" and settings.generation_config
    defaults = sampling_defaults(base.model) if takes_config else SamplingDefaults()
    forms = plain_heads(base.model, base.spec.head) if base.spec.head else {}
    room = _room(settings, base)
    processes = BasisProcesses(settings.data / "bases", _device_of(base))
    resident = _resident(base, room, processes)
    checks = _checks(settings, base, room, starts)
    canary = checks.canary(resident.basis_cache)
    metrics.on_canary(True)
    rows = checks.products(resident.basis_cache)
    tenant_limits = LimitsMirror(
        registry.tenant_limits, registry.directory, settings.default_limits
    )
    meter = Meter(tenant_limits, registry.rates, registry.directory)
    loader = Loader(
        registry.blobs.open_whole,
        resident,
        _capacities(settings, room),
        metrics,
        on_change=lambda entry: serving.worker.wake(),
        is_idle=lambda: serving.worker.is_idle,
    )
    serving: Generating | Encoding
    if base.kind == "causal LM":
        serving = _generating(_Start(settings, base, room, metrics, checks), resident, loader)
        serving.runtime.tell_generated(meter.spend)
    else:
        limits = _limits(settings, room)
        serving = encoding_of(base, resident.injection, forms, loader, metrics, limits)
    if rows.holds:
        computes = serving.engine if isinstance(serving, Generating) else serving.encoder
        rows = checks.steps(rows, computes)
    metrics.on_rows(rows.holds)
    registry.key_mirror.refresh()
    tenant_limits.catch_up()
    registry.directory.start()
    serving.worker.start()
    return Service(
        settings=settings,
        base=base,
        registry=registry,
        loader=loader,
        pins=Pins(loader.memory),
        resident=resident,
        basis_processes=processes,
        room=room,
        metrics=metrics,
        canary=canary,
        rows=rows,
        max_length=_max_length(settings, base, room),
        started=time.time(),
        serving=serving,
        tenant_limits=tenant_limits,
        meter=meter,
        sampling_defaults=defaults,
    )


def _room(settings: Settings, base: Base) -> Room:
    """Return what may be taken of the device's memory; a base that does not generate keeps no keys.

    Raises:
        NoRoom: a GPU's memory is too small.
    """
    names = ("kv_bytes", "coefficient_bytes", "basis_bytes", "merged_bytes")
    given: dict[str, int | None] = {name: getattr(settings, name) for name in names}
    if base.kind != "causal LM":
        given["kv_bytes"] = 0
    return room_on(_device_of(base), given, settings.device_share)


def _device_of(base: Base) -> torch.device:
    return next(base.model.parameters()).device


def _mode(settings: Settings, base: Base) -> ModeSetting:
    """Return the mode: on a GPU `auto` only where it is asked for; see docs/decisions.md."""
    return settings.mode or ("auto" if _device_of(base).type == "cpu" else "factored")


def _resident(base: Base, room: Room, processes: BasisProcesses) -> ResidentBase:
    """Inject the base's linears; return the base with the cache of shared bases."""
    weights = weights_of(base.model, base.spec, processes.folder, processes)
    injection = inject(base.model, base.spec.layers, base.spec.kept_layers)
    first = next(base.model.parameters())
    basis_cache = BasisCache(
        first.device, weights, max_bytes=room.basis_bytes, base_dtype=first.dtype
    )
    return ResidentBase(base.spec, injection, basis_cache)


@dataclass(frozen=True)
class _Start:
    """What is given where the parts of a service are made."""

    settings: Settings
    base: Base
    room: Room
    metrics: Metrics
    checks: KeptChecks


def _checks(settings: Settings, base: Base, room: Room, starts: Starts) -> KeptChecks:
    """Return the checks of this start; settings that change none of them are left out."""
    pages = _num_pages(settings, base, room) if base.kind == "causal LM" else 0
    given = (base.kind, settings.deterministic, settings.calibration_s)
    return KeptChecks(
        base,
        starts.findings_of(base.model, base.spec, base.max_length),
        repr((*given, min(pages, _PAGES_OF_CHECKS))),
        starts.phases.progress,
    )


def _generating(start: _Start, resident: ResidentBase, loader: Loader) -> Generating:
    """Return what serves a causal LM; its loop is not started."""
    settings, base, room, metrics = start.settings, start.base, start.room, start.metrics
    pool = PagePool(_num_pages(settings, base, room), PAGE_SIZE)
    deliveries = Deliveries()
    given = (resident.injection, pool.num_pages, PAGE_SIZE, settings.deterministic)
    engine = start.checks.engine(lambda is_proven: Engine(*given, is_proven=is_proven))
    engine.tell_recording(metrics.on_recording)
    recordings = recordings_on(_device_of(base))
    record = None if recordings is None else recordings.record
    options = _mode_options(settings, base, room, is_recorded=record is not None)
    keep = start.checks.calibration
    placement, calibration = placement_of(loader, resident, options, metrics, record, keep)
    if recordings is not None:
        recordings.retire()  # those of the measuring, before the engine has any
    runtime = Runtime(
        engine,
        Scheduler(
            pool,
            settings.max_step_tokens,
            settings.max_running,
            settings.max_age_s,
            settings.prefix_cache,
            SpareRows(settings.max_step_tokens, settings.batch_slowdown),
        ),
        placement,
        metrics,
        settings.max_waiting,
        flush=deliveries.flush,
    )
    text = Text(base.tokenizer, base.vocabulary, _max_length(settings, base, room))
    constraints = Constraints(base.tokenizer, base.vocabulary)
    return Generating(text, engine, runtime, deliveries, placement, constraints, calibration)


def _mode_options(settings: Settings, base: Base, room: Room, is_recorded: bool) -> ModeOptions:
    return ModeOptions(
        _mode(settings, base),
        settings.deterministic,
        room.merged_bytes,
        settings.max_running,
        settings.calibration_s,
        most_merged=MAX_MERGED if is_recorded else None,  # steps with more are not recorded
    )


def _capacities(settings: Settings, room: Room) -> Capacities:
    """Return the bytes set aside for adapters."""
    return Capacities(
        room.coefficient_bytes, room.basis_bytes, room.merged_bytes, settings.host_bytes
    )


def _limits(settings: Settings, room: Room) -> Limits:
    """Return an encoder's limits; `auto` is factored, since nothing is measured for encoders."""
    is_merged = settings.mode == "merged" and room.merged_bytes > 0
    return Limits(
        mode="merged" if is_merged else "factored",
        max_batch=settings.max_running,
        max_tokens=settings.max_step_tokens,
        max_open=settings.max_running + settings.max_waiting,
        max_pixels=settings.max_image_pixels,
    )


def log_unknown(service: Service) -> None:
    """Log what lies in the store without a record in the registry; nothing is removed."""
    found = service.registry.unknown.look(time.time())
    if found:
        size = sum(each.size_bytes for each in found)
        _LOG.warning(
            "the store holds %d things (%d bytes) that no record names, after a crash or with a "
            "registry from an older backup; they stay, and `overtone gc --dry-run` lists them",
            len(found),
            size,
        )


def _max_length(settings: Settings, base: Base, room: Room) -> int:
    """Return the most tokens of a sequence that the base and the cache can hold."""
    if base.kind != "causal LM":
        return base.max_length
    return min(base.max_length, _num_pages(settings, base, room) * PAGE_SIZE)


def _num_pages(settings: Settings, base: Base, room: Room) -> int:
    """Return the pages that fit into the cache's bytes, and no more than could ever be used."""
    fitting = room.kv_bytes // (PAGE_SIZE * base.kv_token_bytes)
    usable = settings.max_running * -(-base.max_length // PAGE_SIZE)
    return max(2, min(fitting, usable))
