"""The shipped demo adapters: read as uploads are, and better than the base where they say so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters_core.base.spec import spec_of
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise
from adapters_core.layers.serving_plan import MergedGroup, ServingPlan
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods import FourierFT
from trainer.demo_build import demo_adapters
from trainer.demo_build.demo_base import encode
from trainer.demo_build.demo_data import stored_held_out
from trainer.demo_build.demo_training import nats_per_token

DEMO = Path(demo_adapters.__file__).parent.parent / "demo"


@pytest.fixture
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(DEMO / "base", dtype=torch.float32).eval()


@pytest.mark.parametrize("name", sorted(demo_adapters.RECIPES))
def test_held_out_losses_are_as_stated_and_clearly_below_the_base(name: str, model: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "base")
    spec = spec_of(model, demo_adapters.BASE_NAME)
    injection = inject(model)
    folder = DEMO / "adapters" / name
    config = (folder / CONFIG_NAME).read_bytes()
    adapter = read_adapter(folder / WEIGHTS_NAME, config, spec)
    assert adapter.description.base_verified
    stated = json.loads((folder / "metrics.json").read_text())
    tokens = encode(tokenizer, stored_held_out(name))
    assert nats_per_token(model, tokens) == pytest.approx(stated["base_loss"], abs=2e-3)
    bases = BasisCache(torch.device("cpu"))
    weights = materialise(adapter.methods, adapter.layers, injection.linears, bases)
    injection.switch.plan = ServingPlan(merged=[MergedGroup(weights, None)])
    assert nats_per_token(model, tokens) == pytest.approx(stated["loss"], abs=2e-3)
    assert stated["loss"] < 0.9 * stated["base_loss"]


@pytest.mark.slow
def test_training_lowers_the_loss_and_leaves_the_base_alone(model: Any) -> None:
    model.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spec = spec_of(model, "demo")
    injection = inject(model)
    generator = torch.Generator().manual_seed(0)
    bases = BasisCache(torch.device("cpu"))
    plan = TrainingPlan(FourierFT(n=500, scale=37.5), spec.targets, bases, generator)
    tokens = torch.randint(3, 60, (400,), generator=generator)
    unadapted = nats_per_token(model, tokens)
    injection.switch.plan = plan
    assert nats_per_token(model, tokens) == pytest.approx(unadapted, abs=1e-6)
    demo_adapters.train_adapter(injection, plan, tokens, rate=1e-1, seconds=4)
    injection.switch.plan = plan
    assert nats_per_token(model, tokens) < 0.9 * unadapted
    injection.undo()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
