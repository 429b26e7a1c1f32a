"""The shipped adapters on SmolLM2 are what their card says, small, and better than the base."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from adapters_core.contract.method_registry import registered
from trainer.demo_build.smollm2_adapters import RECIPES
from trainer.demo_build.smollm2_card import FOLDER, card

ADAPTERS = FOLDER / "adapters"
MOST_BYTES = 1_500_000


def figures(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ADAPTERS / name / "metrics.json").read_text())
    return found


def test_the_card_has_the_adapters_own_figures() -> None:
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == card()


def test_each_recipe_is_shipped_and_nothing_else() -> None:
    assert {path.name for path in ADAPTERS.iterdir()} == set(RECIPES)
    assert len({recipe.method for recipe in RECIPES.values()}) >= 3


def test_all_of_it_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < MOST_BYTES


@pytest.mark.parametrize("name", RECIPES)
def test_an_adapter_is_of_its_recipe_and_better_than_the_base(name: str) -> None:
    found, folder = figures(name), ADAPTERS / name
    config = json.loads((folder / "adapter_config.json").read_text())
    kind = registered()[RECIPES[name].method]
    assert config["peft_type"] == kind.peft_type
    own = dict(RECIPES[name].config)
    layers = own.pop("layers_to_transform", list(range(30)))
    assert {int(path.split(".")[2]) for path in config["target_modules"]} == set(layers)
    assert all(config[key] == value for key, value in own.items())
    assert found["bytes"] == (folder / "adapter_model.safetensors").stat().st_size
    assert found["loss"] < 0.9 * found["base_loss"]
    assert found.get("right", 1) > found.get("base_right", 0)


def test_all_are_of_one_base() -> None:
    bases = {_base_of(ADAPTERS / name / "adapter_model.safetensors") for name in RECIPES}
    assert len(bases) == 1


def _base_of(file: Path) -> str:
    with safe_open(file, "pt") as opened:
        return str(json.loads(opened.metadata()["overtone"])["base"]["fingerprint"])
