"""The tiny Llama, and adapters on it, for the commands of files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

import tiny
from adapters_core.base.spec import BaseSpec, spec_of
from peft_made import make, quiet


@pytest.fixture(scope="module")
def base(base_folder: Callable[[str], Path]) -> Path:
    return base_folder("llama")


@pytest.fixture(scope="module")
def spec(base: Path) -> BaseSpec:
    return spec_of(tiny.model("llama"), base.name)


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """PEFT's own LoRA on the queries and values."""
    make("llama", 1, tmp_path / "lora")
    return tmp_path / "lora"


@pytest.fixture(scope="module", params=["embedding", "tokens", "saved"])
def unusual(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PEFT's own LoRA that changes an embedding or an output layer, too."""
    fields: dict[str, Any] = {
        "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
        "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 9]},
        "saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    }[request.param]
    folder = tmp_path_factory.mktemp("unusual")
    with quiet():
        config = LoraConfig(r=2, init_lora_weights=False, task_type="CAUSAL_LM", **fields)
        get_peft_model(tiny.model("llama"), config).save_pretrained(str(folder))
    return folder
