"""A base of one layer, adapters on disk, and runtimes that end with the test."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from torch import nn

import tiny
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.layers.inject import Injection, inject
from running import NUM_PAGES, Running
from server.engine.engine import Engine
from server_parts import FOURIERFT, LORA, Store, torch_threads


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


@pytest.fixture(scope="module")
def engine(injection: Injection) -> Engine:
    return Engine(injection, NUM_PAGES)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, spec: BaseSpec) -> Store:
    made = Store(tmp_path_factory.mktemp("blobs"), spec)
    for i in range(4):
        made.write(f"good{i}", (FOURIERFT, LORA)[i % 2], i)
    made.write("damaged", LORA, 9)
    file = made.open("damaged").file
    file.write_bytes(file.read_bytes()[:-4])
    return made


@pytest.fixture
def running(injection: Injection, engine: Engine, store: Store) -> Iterator[Callable[..., Running]]:
    made: list[Running] = []

    def build(**options: Any) -> Running:
        store.gates.clear()
        made.append(Running(injection, engine, store, **options))
        made[-1].runtime.start()
        return made[-1]

    yield build
    for one in made:
        one.engine.may_step.set()
        for gate in store.gates.values():
            gate.set()
        one.runtime.stop(timeout_s=0)
        one.loader.close()
