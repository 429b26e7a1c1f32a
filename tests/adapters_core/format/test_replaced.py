"""Which layers a config replaces: each named once, by names that the base has."""

import json
from dataclasses import replace
from typing import Any

import pytest

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Shape
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import InvalidAdapter
from adapters_core.format.replaced import replaced_by
from adapters_core.format.token_rows import TokenRows
from adapters_core.format.whole_weight import WholeWeight

EMBEDDING, OUTPUT = "model.embed_tokens", "lm_head"


def config_of(**fields: Any) -> PeftConfig:
    given = {"peft_type": "LORA", "r": 3, "target_modules": ["q_proj"], **fields}
    return PeftConfig.parse(json.dumps(given).encode())


@pytest.fixture
def spec(llama_spec: BaseSpec) -> BaseSpec:
    lookups, outputs = {EMBEDDING: Shape(96, 300)}, {OUTPUT: Shape(300, 96)}
    return replace(llama_spec, lookups=lookups, outputs=outputs)


def test_a_list_of_tokens_is_of_the_input_embedding(spec: BaseSpec) -> None:
    found = replaced_by(config_of(trainable_token_indices=[5, 9]), spec)
    assert found == {EMBEDDING: TokenRows((5, 9), looked_up=True)}


def test_whole_weights_are_named_by_the_end_of_their_path(spec: BaseSpec) -> None:
    found = replaced_by(config_of(modules_to_save=["embed_tokens", "lm_head"]), spec)
    assert found == {EMBEDDING: WholeWeight(looked_up=True), OUTPUT: WholeWeight()}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"trainable_token_indices": {"embed_tokens": [1], EMBEDDING: [2]}}, "more than once"),
        ({"trainable_token_indices": {"embed": [1]}}, "cannot replace"),
        ({"trainable_token_indices": [5, 5]}, "no list of different tokens"),
        ({"trainable_token_indices": [True]}, "no list of different tokens"),
        ({"trainable_token_indices": [-1]}, "has token -1"),
        ({"trainable_token_indices": 7}, "neither a list of tokens nor an object"),
        ({"modules_to_save": ["norm"]}, "cannot replace"),
        ({"modules_to_save": "lm_head"}, "not a list of names"),
        (
            {"modules_to_save": ["embed_tokens"], "trainable_token_indices": [1]},
            "both change model.embed_tokens",
        ),
    ],
    ids=str,
)
def test_a_layer_that_is_not_named_right_is_refused(
    fields: dict[str, Any], says: str, spec: BaseSpec
) -> None:
    with pytest.raises(InvalidAdapter, match=says) as caught:
        replaced_by(config_of(**fields), spec)
    assert caught.value.param in fields


@pytest.mark.parametrize("field", ["trainable_token_indices", "modules_to_save"])
def test_a_base_without_such_layers_is_named_in_the_refusal(
    field: str, llama_spec: BaseSpec
) -> None:
    given = [1] if field == "trainable_token_indices" else ["lm_head"]
    with pytest.raises(InvalidAdapter, match="it can: none") as caught:
        replaced_by(config_of(**{field: given}), llama_spec)
    assert caught.value.param == field
