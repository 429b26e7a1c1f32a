"""Everything a running server consists of, put together once, and taken apart in reverse."""

import logging
import time
from dataclasses import dataclass

from adapters_core.base import weights_of
from adapters_core.bases import Bases
from adapters_core.canary import CanaryReport, run_canary, usual_methods
from adapters_core.inject import inject
from adapters_core.memory import keep_freed_memory
from registry import Registry
from server.delivery import Deliveries
from server.engine import Engine
from server.kv_pool import PagePool
from server.loader import Loader
from server.metrics import Metrics
from server.model import Base
from server.planner import Planner
from server.runtime import Runtime
from server.scheduler import Scheduler
from server.settings import Settings
from server.text import Text

PAGE_SIZE = 32
_SWEEP_AGE_S = 3600.0
_LOG = logging.getLogger("overtone")


@dataclass(frozen=True)
class Service:
    """The parts that routes use."""

    settings: Settings
    base: Base
    text: Text
    registry: Registry
    runtime: Runtime
    loader: Loader
    bases: Bases
    deliveries: Deliveries
    metrics: Metrics
    canary: CanaryReport
    max_length: int
    started: float

    def close(self) -> None:
        """End the loop, the loaders and the registry, in this order."""
        self.runtime.stop()
        self.loader.close()
        self.registry.close()


def build(settings: Settings, base: Base, registry: Registry, metrics: Metrics) -> Service:
    """Return a started service.

    Raises:
        CanaryFailed, UnsupportedAttention: this machine or this base cannot be served rightly.
    """
    keep_freed_memory()
    weights = weights_of(base.model, base.spec, settings.data / "bases")
    injection = inject(base.model)
    device = next(base.model.parameters()).device
    bases = Bases(device, weights, max_bytes=settings.basis_bytes)
    canary = run_canary(usual_methods(), set(base.spec.targets.values()), bases)
    metrics.on_canary(True)
    pool = PagePool(_num_pages(settings, base), PAGE_SIZE)
    deliveries = Deliveries()
    loader = Loader(
        registry.blobs.open,
        base.spec,
        injection,
        bases,
        settings.coefficient_bytes,
        settings.basis_bytes,
        settings.merged_bytes,
        metrics,
        on_change=lambda entry: runtime.wake(),
    )
    runtime = Runtime(
        Engine(injection, pool.num_pages, PAGE_SIZE),
        Scheduler(pool, settings.max_step_tokens, settings.max_running),
        loader,
        Planner(settings.mode, can_merge=settings.merged_bytes > 0),
        metrics,
        settings.max_waiting,
        flush=deliveries.flush,
    )
    registry.directory.start()
    runtime.start()
    return Service(
        settings=settings,
        base=base,
        text=Text(base.tokenizer, base.vocabulary),
        registry=registry,
        runtime=runtime,
        loader=loader,
        bases=bases,
        deliveries=deliveries,
        metrics=metrics,
        canary=canary,
        max_length=min(base.max_length, pool.num_pages * PAGE_SIZE),
        started=time.time(),
    )


def sweep(service: Service) -> None:
    """Remove what a crash between blob and record has left behind, if it is over an hour old."""
    registry = service.registry
    removed = registry.blobs.sweep(registry.adapters.digest_is_live, _SWEEP_AGE_S, time.time())
    if removed:
        _LOG.info("removed %d blobs that no record names", len(removed))


def _num_pages(settings: Settings, base: Base) -> int:
    """Return the pages that the cache's bytes buy, and no more than could ever be used."""
    bought = settings.kv_bytes // (PAGE_SIZE * base.kv_token_bytes)
    usable = settings.max_running * -(-base.max_length // PAGE_SIZE)
    return max(2, min(bought, usable))
