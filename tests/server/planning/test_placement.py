"""Modes and leases in one: nothing waits for a merge that the planner asked for."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import tiny
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.modes import ModeSetting
from server.base.resident import ResidentBase
from server.planning.costs import Costs, Curve
from server.planning.placement import Placed, Placement
from server.planning.planner import Planner
from server.telemetry.observer import Observer, PlanStats
from server_parts import CPU, FOURIERFT, QUERY_VALUE, Store, eventually, torch_threads

#: So dear factored that one request makes a copy pay.
COSTS = Costs(
    own=Curve(((4, 1e-3), (64, 2e-3))),
    split=Curve(((16, 0.0),)),
    token=Curve(((4, 1.0), (64, 2.0))),
    prompt=Curve(((16, 1.0),)),
    merged_bytes=1,
    merge_s=0.0,
)


@dataclass
class Decisions(Observer):
    told: list[PlanStats] = field(default_factory=list)

    def on_placed(self, stats: PlanStats) -> None:
        self.told.append(stats)

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(stats.mode, stats.reason) for stats in self.told]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return tiny.model("llama", num_hidden_layers=1)


@pytest.fixture(scope="module")
def spec(base: nn.Module) -> BaseSpec:
    return spec_of(base, "tiny")


@pytest.fixture(scope="module")
def injection(base: nn.Module, spec: BaseSpec) -> Injection:
    return inject(base)


class Place:
    """A placement over a real loader and a folder of adapters."""

    def __init__(
        self,
        store: Store,
        injection: Injection,
        setting: ModeSetting = "auto",
        merged_bytes: int = 1 << 20,
        coefficient_bytes: int = 1 << 20,
        **options: Any,
    ) -> None:
        self.store, self.observer = store, Decisions()
        self.loader = Loader(
            store.open,
            ResidentBase(store.spec, injection, BasisCache(CPU)),
            Capacities(coefficient_bytes, 1 << 30, merged_bytes),
            Observer(),
            lambda entry: None,
        )
        self.planner = Planner(merged_bytes, window=4)
        self.placement = Placement(
            self.loader,
            setting,
            self.planner,
            lambda layout: COSTS,
            observer=self.observer,
            **options,
        )

    def ask(self, digest: str, **options: Any) -> Placed:
        """Place a request, wait until it could run, and give its lease back."""
        placed = self.placement.place(digest, **options)
        lease = placed.lease
        assert lease is not None
        eventually(lambda: lease.is_ready or lease.error is not None)
        self.placement.release(lease)
        return placed


@pytest.fixture
def place(tmp_path: Path, spec: BaseSpec, injection: Injection) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def build(**options: Any) -> Place:
        store = Store(tmp_path, spec)
        for i, digest in enumerate("ab"):
            store.write(digest, FOURIERFT, i)
        made.append(Place(store, injection, **options))
        return made[-1]

    yield build
    for one in made:
        for gate in one.store.gates.values():
            gate.set()
        one.loader.close()


def merge_a(p: Place) -> None:
    """Ask for `a` until its merged weights are there."""
    for _ in range(8):
        p.ask("a")
    eventually(lambda: "merged" in p.loader.memory.modes_of("a"))


def test_a_cold_adapter_starts_factored_and_is_merged_beside(place: Callable[..., Place]) -> None:
    p = place()
    assert p.ask("a").mode == "factored"
    merge_a(p)
    assert p.ask("a").mode == "merged"
    assert p.observer.reasons[0] == ("factored", "planned")
    assert ("factored", "merging") in p.observer.reasons
    assert p.observer.reasons[-1] == ("merged", "planned")
    assert p.observer.told[-1].num_planned == 1


def test_requests_go_on_factored_while_a_merge_is_held_up(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    import server.adapters.materializer as materializer

    go_on, begun, materialise = threading.Event(), threading.Event(), materializer.materialise

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return materialise(*args)

    monkeypatch.setattr(materializer, "materialise", slow)
    p = place()
    while not begun.is_set():
        assert p.ask("a").mode == "factored"
    assert {p.ask("a").mode for _ in range(5)} == {"factored"}
    assert p.loader.memory._caches["merged"].misses == 1, "it was begun twice"
    go_on.set()
    eventually(lambda: "merged" in p.loader.memory.modes_of("a"))
    assert p.ask("a").mode == "merged"


@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_a_setting_forces_the_mode(place: Callable[..., Place], mode: ModeSetting) -> None:
    p = place(setting=mode)
    assert {p.ask("ab"[i % 2]).mode for i in range(6)} == {mode}
    assert set(p.observer.reasons) == {(mode, "forced")}
    assert p.loader.memory.modes_of("a") == [mode]


def test_deterministic_auto_keeps_every_adapter_factored(place: Callable[..., Place]) -> None:
    p = place(deterministic=True)
    assert {p.ask("a").mode for _ in range(20)} == {"factored"}
    assert p.loader.memory.modes_of("a") == ["factored"]


def test_another_sequence_of_a_request_keeps_its_mode(place: Callable[..., Place]) -> None:
    p = place()
    merge_a(p)
    assert p.ask("a", mode="factored").mode == "factored"
    assert p.ask("a").mode == "merged"


def test_the_base_has_no_mode_and_no_lease(place: Callable[..., Place]) -> None:
    for setting in ("auto", "factored", "merged"):
        assert place(setting=setting).placement.place(None) == Placed(None, None)


def test_what_is_merged_answers_while_its_coefficients_come_back(
    place: Callable[..., Place],
) -> None:
    p = place()
    merge_a(p)
    with p.loader.memory._room:
        victim = p.loader.memory._caches["factored"].evict_one()
        assert victim is not None
        p.loader.memory._free(victim)
    p.planner.plan = frozenset()
    assert p.ask("a").mode == "merged"
    assert p.observer.reasons[-1] == ("merged", "resident")
    eventually(lambda: "factored" in p.loader.memory.modes_of("a"))


def test_a_merge_that_cannot_be_had_is_not_tried_at_every_request(
    place: Callable[..., Place],
) -> None:
    p = place(merged_bytes=1)  # the planner thinks that it fits
    for _ in range(40):
        assert p.ask("a").mode == "factored"
    eventually(lambda: not p.loader.memory._caches["merged"].entries)
    assert p.loader.memory._caches["merged"].misses <= 2


def test_a_background_merge_takes_no_room_from_what_is_in_use(
    place: Callable[..., Place], spec: BaseSpec
) -> None:
    """It gives up; whoever waits for room is not behind it in the line."""
    shapes = [shape for t, shape in spec.targets.items() if t.endswith(QUERY_VALUE)]
    p = place(merged_bytes=sum(4 * shape.out * shape.in_ for shape in shapes))
    held = p.loader.acquire("b", "merged")
    eventually(lambda: held.is_ready)
    for _ in range(12):
        assert p.ask("a").mode == "factored"
    eventually(lambda: len(p.loader.memory._caches["merged"].entries) == 1)
    assert not held.is_leaving
    assert not p.loader.memory._caches["merged"].queue


def test_an_adapter_that_is_gone_fails_and_leaves_nothing(place: Callable[..., Place]) -> None:
    p = place()
    placed = p.ask("missing")
    assert placed.lease is not None
    assert isinstance(placed.lease.error, FileNotFoundError)
    assert p.loader.memory.modes_of("missing") == []


def test_the_mode_to_come_is_told_without_counting_a_request(place: Callable[..., Place]) -> None:
    p = place()
    assert p.placement.mode_of("a") == "factored"
    merge_a(p)
    assert p.placement.mode_of("a") == "merged"
    assert p.placement.mode_of("b") == "factored"
    assert place(setting="merged").placement.mode_of("b") == "merged"
