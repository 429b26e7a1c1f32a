"""An adapter with a whole weight: its bytes are charged, and it comes back of its file."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import tiny
from adapters_core.base.causal_probe import with_causal_targets
from adapters_core.base.spec import spec_of, weights_of
from adapters_core.contract.method import Shape
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from peft_made import quiet
from server.adapters.loader import Loader
from server.adapters.memory import Capacities
from server.adapters.residency import Entry
from server.base.resident import ResidentBase
from server.errors import AdapterTooLarge
from server.telemetry.observer import Observer
from server_parts import CPU, Store, eventually

RANK = 3


@dataclass(frozen=True)
class Place:
    store: Store
    resident: ResidentBase
    weights: dict[str, torch.Tensor]

    def loader(self, num_adapters: float) -> Loader:
        """Return a loader with room for so many of these adapters, and for copies of all rows."""
        room = int(num_adapters * self.adapter_bytes)
        capacities = Capacities(room, 1 << 20, 1 << 20, 1 << 20)
        return Loader(self.store.open, self.resident, capacities, Observer(), lambda _: None)

    @property
    def adapter_bytes(self) -> int:
        """Return the bytes of LoRA's factors of q_proj and of an output layer's weight."""
        shapes: list[Shape] = [s for t, s in self.store.spec.targets.items() if "q_proj" in t]
        row = sum(4 * RANK * (shape.out + shape.in_) for shape in shapes)
        return row + self.weights["a"].nbytes


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    model = tiny.model("llama", num_hidden_layers=1)
    spec = with_causal_targets(spec_of(model, "tiny"), model, 64)
    weights = {}
    for seed, digest in enumerate("ab"):
        torch.manual_seed(seed)
        fields = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}
        with quiet():
            config = LoraConfig(r=RANK, task_type="CAUSAL_LM", init_lora_weights=False, **fields)
            made = get_peft_model(copy.deepcopy(model), config)
            own = made.base_model.model.lm_head.modules_to_save["default"].weight
            own.data += 0.1 * torch.randn(own.shape)
            made.save_pretrained(str(tmp_path / digest))
        weights[digest] = own.detach()
    bases = BasisCache(CPU, weights_of(model, spec))
    injection = inject(model, spec.layers, spec.kept_layers)
    yield Place(Store(tmp_path, spec), ResidentBase(spec, injection, bases), weights)
    injection.undo()


def _loaded(loader: Loader, digest: str) -> Entry:
    entry = loader.acquire(digest, "factored")
    eventually(lambda: entry.is_ready or entry.error is not None)
    return entry


def test_it_is_evicted_with_its_bytes_and_comes_back_of_its_file(place: Place) -> None:
    loader = place.loader(1.5)
    try:
        for digest in "aba":
            entry = _loaded(loader, digest)
            assert entry.error is None
            assert entry.size_bytes == place.adapter_bytes
            assert torch.equal(entry.payload.weights["lm_head"], place.weights[digest])
            loader.release(entry)
        assert place.store.opened == ["a", "b", "a"]  # no row without its weight in between
    finally:
        loader.close()


def test_one_that_can_never_fit_is_refused(place: Place) -> None:
    loader = place.loader(0.9)
    try:
        assert isinstance(_loaded(loader, "a").error, AdapterTooLarge)
    finally:
        loader.close()
