"""A base of one layer, adapters on disk, and loaders that end with the test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import nn

import tiny
from adapters_core.base.spec import spec_of
from adapters_core.layers.inject import Injection, inject
from loader_place import Place
from server_parts import Store, torch_threads


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return tiny.model("llama", num_hidden_layers=1)


@pytest.fixture
def injection(base: nn.Module) -> Iterator[Injection]:
    made = inject(base)
    yield made
    made.undo()


@pytest.fixture
def store(tmp_path: Path, base: nn.Module) -> Store:
    return Store(tmp_path, spec_of(base, "tiny"))


@pytest.fixture
def place(store: Store, injection: Injection) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def build(
        factored: int = 4, merged: int = 2, basis_bytes: int = 1 << 30, host: int = 0
    ) -> Place:
        made.append(Place(store, injection, factored, merged, basis_bytes, host))
        return made[-1]

    yield build
    for one in made:
        one.loader.close()
