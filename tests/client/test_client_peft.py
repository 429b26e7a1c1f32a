"""Adapters that are in memory are uploaded as the bytes that PEFT would save."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.numpy import load

from overtone_client import Adapter, AsyncClient, Client, InvalidAdapter, InvalidArgument
from overtone_client._peft import _fields

from .fake_overtone import Fault, State

#: Where PEFT looks for a base's config before it asks elsewhere.
FOLDER = Path(__file__).parents[2] / "trainer" / "demo" / "base"


class Base(torch.nn.Module):
    """Two linears with a name."""

    def __init__(self) -> None:
        super().__init__()
        self.name_or_path = str(FOLDER)
        self.q_proj = torch.nn.Linear(8, 8)
        self.v_proj = torch.nn.Linear(8, 8)


def adapted(**names: Any) -> Any:
    torch.manual_seed(0)
    config = peft.FourierFTConfig(n_frequency=4, target_modules=["q_proj", "v_proj"])
    return peft.get_peft_model(Base(), config, **names)


def stored(state: State, adapter: Adapter) -> bytes:
    return state.files[f"{adapter.name}@{adapter.version}"]


def test_a_peft_model_is_uploaded_as_peft_saves_it(
    client: Client, state: State, tmp_path: Path
) -> None:
    model = adapted()
    seen: list[tuple[int, int]] = []
    made = client.upload_peft(
        model, "poet", alias="prod", on_progress=lambda *done: seen.append(done)
    )
    model.save_pretrained(tmp_path)
    assert stored(state, made) == (tmp_path / "adapter_model.safetensors").read_bytes()
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    sent = {**state.form["config"], "auto_mapping": saved["auto_mapping"]}
    assert {**sent, "target_modules": sorted(sent["target_modules"])} == {
        **saved,
        "target_modules": sorted(saved["target_modules"]),
    }
    assert state.aliases["poet"]["prod"] == 1
    assert seen[-1][0] == seen[-1][1] == len(stored(state, made))


def test_any_of_the_models_adapters_can_be_chosen(client: Client) -> None:
    model = adapted(adapter_name="first")
    model.add_adapter("second", peft.FourierFTConfig(n_frequency=2, target_modules=["q_proj"]))
    assert client.upload_peft(model, "poet", adapter="second").version == 1
    assert client.upload_peft(model, "poet").version == 2
    with pytest.raises(InvalidArgument, match="no adapter 'third'; it has 'first', 'second'"):
        client.upload_peft(model, "poet", adapter="third")


def test_tensors_with_a_config_are_an_adapter(client: Client, state: State) -> None:
    model = adapted()
    config = model.peft_config["default"]
    tensors = peft.get_peft_model_state_dict(model)
    made = client.upload_peft(tensors, "poet", config=config)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    again = client.upload_peft(arrays, "poet", config=config.to_dict() | {"peft_type": "FOURIERFT"})
    for each in (made, again):
        found = load(stored(state, each))
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in arrays.items()
        }


def test_what_is_no_adapter_is_refused_before_anything_is_sent(
    client: Client, state: State
) -> None:
    for source, options, words in (
        ({"a": np.ones(2)}, {}, "give the PeftConfig as `config`"),
        (Base(), {}, "Base is neither a PeftModel nor a dictionary of tensors"),
        (adapted(), {"config": {}}, "leave `config` out"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            client.upload_peft(source, "poet", **options)
    assert state.calls == []


@pytest.mark.parametrize("code", ["base_mismatch", "invalid_adapter", "unused_tensors"])
def test_an_adapter_of_another_base_is_refused_with_both_names(
    client: Client, state: State, code: str
) -> None:
    state.next_fault = Fault(409 if code == "base_mismatch" else 422, code, "q_proj is 16 wide")
    with pytest.raises(
        Exception, match=r"made on '.*base'; this server's base is 'tiny'"
    ) as caught:
        client.upload_peft(adapted(), "poet")
    assert getattr(caught.value, "code", None) == code


@pytest.mark.parametrize("code", ["no_effect", "non_finite"])
def test_what_is_wrong_with_an_adapters_values_says_nothing_of_bases(
    client: Client, state: State, code: str
) -> None:
    state.next_fault = Fault(422, code, "q_proj has no effect")
    with pytest.raises(InvalidAdapter) as caught:
        client.upload_peft(adapted(), "poet")
    assert "made on" not in str(caught.value)


def test_a_config_is_the_same_whatever_order_a_set_has() -> None:
    names = {"v_proj", "q_proj", "k_proj", "o_proj", "up_proj", "gate_proj", "down_proj"}
    assert _fields({"target_modules": names})["target_modules"] == sorted(names)


@pytest.mark.anyio
async def test_the_awaited_client_uploads_from_memory_too(
    async_client: AsyncClient, state: State
) -> None:
    made = await async_client.upload_peft(adapted(), "poet")
    assert set(load(stored(state, made)))
