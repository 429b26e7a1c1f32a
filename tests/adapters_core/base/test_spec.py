"""What an adapter may know of its base."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters_core.base.spec import adaptable, fingerprint, shape_of, spec_of, weight_of
from adapters_core.contract.method import Shape
from tiny_bases import TINY, tiny_gpt2, tiny_llama


@pytest.mark.parametrize("make", list(TINY.values()), ids=list(TINY))
def test_a_bfloat16_base_has_one_fingerprint_however_it_is_loaded(
    make: Callable[[], nn.Module],
) -> None:
    stored = make().to(torch.bfloat16)
    before = fingerprint(stored)
    assert before.startswith("sha256:")
    assert fingerprint(stored.to(torch.float32)) == before
    assert fingerprint(stored.to(torch.float64)) == before


def test_values_enter_the_fingerprint_as_bfloat16() -> None:
    model = tiny_llama()
    assert fingerprint(model) == fingerprint(tiny_llama().to(torch.bfloat16))


@pytest.mark.parametrize("rate", [1e-3, 1e-2])
def test_one_step_of_training_is_another_base(rate: float) -> None:
    model = tiny_llama().to(torch.bfloat16).float()
    before = fingerprint(model)
    optimiser = torch.optim.SGD(model.parameters(), lr=rate * 10)
    ids = torch.arange(16).view(2, 8)
    model(ids, labels=ids).loss.backward()
    optimiser.step()
    assert fingerprint(model) != before


def test_one_step_of_training_in_half_precision_is_another_base() -> None:
    model = tiny_llama().to(torch.bfloat16)
    before = fingerprint(model)
    ids = torch.arange(16).view(2, 8)
    model(ids, labels=ids).loss.backward()
    torch.optim.AdamW(model.parameters(), lr=1e-3).step()
    assert fingerprint(model) != before


def test_one_small_tensor_is_enough_to_tell_bases_apart() -> None:
    model = tiny_llama()
    before = fingerprint(model)
    with torch.no_grad():
        model.model.norm.weight[17] += 0.5
    assert fingerprint(model) != before


def test_names_and_shapes_are_part_of_the_fingerprint() -> None:
    one, two = nn.Module(), nn.Module()
    one.a, two.b = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))
    three = nn.Module()
    three.a = nn.Parameter(torch.ones(2, 3))
    assert len({fingerprint(one), fingerprint(two), fingerprint(three)}) == 3


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 8191, 12289])
def test_first_value_counts_in_a_tensor_of_any_size(size: int) -> None:
    module = nn.Module()
    module.a = nn.Parameter(torch.zeros(size))
    before = fingerprint(module)
    with torch.no_grad():
        module.a[0] = 1
    assert fingerprint(module) != before


def test_at_most_4096_values_of_a_tensor_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Module()
    module.a = nn.Parameter(torch.zeros(8191))
    before, moved = fingerprint(module), 0
    for i in range(8191):
        with torch.no_grad():
            module.a[i] = 1
        moved += fingerprint(module) != before
        with torch.no_grad():
            module.a[i] = 0
    assert 2048 < moved <= 4096


def test_conv1d_is_a_map_from_in_to_out() -> None:
    linear = Conv1D(180, 60)  # Conv1D(out, in)
    assert linear.weight.shape == (60, 180)
    assert shape_of(linear) == Shape(out=180, in_=60)
    assert weight_of(linear).shape == (180, 60)
    assert weight_of(linear).data_ptr() == linear.weight.data_ptr()
    assert shape_of(nn.Linear(60, 180)) == Shape(out=180, in_=60)


def test_gpt2s_targets_have_their_shapes_as_maps() -> None:
    targets = spec_of(tiny_gpt2(), "gpt2").targets
    assert targets["transformer.h.0.attn.c_attn"] == Shape(180, 60)
    assert targets["transformer.h.1.mlp.c_fc"] == Shape(240, 60)
    assert targets["transformer.h.1.mlp.c_proj"] == Shape(60, 240)
    assert len(targets) == 8


def test_gqa_makes_narrow_keys_and_values() -> None:
    targets = spec_of(tiny_llama(), "llama").targets
    assert targets["model.layers.0.self_attn.q_proj"] == Shape(96, 96)
    assert targets["model.layers.0.self_attn.v_proj"] == Shape(32, 96)
    assert len(targets) == 14


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_embedding_is_no_target(tied: bool) -> None:
    model = tiny_llama(tie_word_embeddings=tied)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied
    paths = [path for path, _ in adaptable(model)]
    assert "lm_head" not in paths
    assert len(paths) == 14


def test_targets_stand_in_the_models_order() -> None:
    targets = list(spec_of(tiny_llama(), "llama").targets)
    assert targets[0] == "model.layers.0.self_attn.q_proj"
    assert targets[-1] == "model.layers.1.mlp.down_proj"


def test_any_module_without_an_output_embedding_will_do() -> None:
    assert spec_of(nn.Sequential(nn.Linear(3, 4)), "plain").targets == {"0": Shape(4, 3)}
