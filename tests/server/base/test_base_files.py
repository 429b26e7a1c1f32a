"""A base whose files are not the base that its config describes is refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny
from server.base.load_errors import BaseNotLoadable
from server.base.loading import Base, load_base
from trainer.base import load as load_for_training
from trainer.errors import BaseNotLoadable as NotTrainable

Tensors = dict[str, Tensor]
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save_base(tmp_path / "base")


def load(folder: Path) -> Base:
    return load_base(str(folder), "tiny", "cpu", "auto")


def change(folder: Path, edit: Callable[[Tensors], Tensors]) -> None:
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, {"format": "pt"})


def configure(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def without(*keys: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: t for key, t in tensors.items() if key not in keys}


def prefixed(tensors: Tensors) -> Tensors:
    return {f"student.{key}": tensor for key, tensor in tensors.items()}


def narrower(tensors: Tensors) -> Tensors:
    return tensors | {"model.norm.weight": tensors["model.norm.weight"][:5].clone()}


def with_bias(tensors: Tensors) -> Tensors:
    return tensors | {"model.layers.0.self_attn.q_proj.bias": torch.ones(96)}


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (without(DOWN), rf"no values for {DOWN}\. Save the model once more"),
        (prefixed, r"no values for lm_head\.weight, .* and 18 more.*begin with 'student\.'"),
        (narrower, r"model\.norm\.weight is \[5\], not \[96\]"),
        (with_bias, r"ignores: model\.layers\.0\.self_attn\.q_proj\.bias"),
    ],
)
def test_files_that_are_not_the_base_are_refused(
    folder: Path, edit: Callable[[Tensors], Tensors], says: str
) -> None:
    change(folder, edit)
    with pytest.raises(BaseNotLoadable, match=says):
        load(folder)
    with pytest.raises(NotTrainable, match=says):
        load_for_training(folder, "causal_lm")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_hidden_layers": 1}, r"ignores: model\.layers\.1\.input_layernorm"),
        ({"num_hidden_layers": 3}, r"no values for model\.layers\.2\.input_layernorm"),
        ({"model_type": "gpt2"}, r"no values for transformer\.h\.0"),
        ({"max_position_embeddings": -1}, r"max_position_embeddings = -1, .*model_max_length"),
        ({"hidden_size": "wide"}, r"cannot be loaded"),
        ({"model_type": "nothing-of-the-kind"}, r"nothing-of-the-kind"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    folder: Path, fields: dict[str, Any], says: str
) -> None:
    configure(folder, **fields)
    with pytest.raises(BaseNotLoadable, match=says) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_tied_may_be_missing(folder: Path) -> None:
    change(folder, without("lm_head.weight"))
    configure(folder, tie_word_embeddings=True)
    assert load(folder).spec.fingerprint == load(folder).spec.fingerprint


def test_what_an_lm_has_no_part_for_may_be_left_over(folder: Path) -> None:
    before = load(folder).spec.fingerprint
    more = {
        "score.weight": torch.zeros(2, 96),
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
    }
    change(folder, lambda tensors: tensors | more)
    assert load(folder).spec.fingerprint == before


def test_the_tokenizer_says_how_long_a_text_may_be_where_the_config_does_not(folder: Path) -> None:
    configure(folder, max_position_embeddings=-1)
    made = tiny.tokenizer()
    made.model_max_length = 77
    made.save_pretrained(folder)
    assert load(folder).max_length == 77


@pytest.mark.parametrize("left", [50, -100])
def test_a_file_that_was_cut_off_is_said_to_be(folder: Path, left: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(BaseNotLoadable, match="cut off"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "no file named model.safetensors"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(folder: Path, name: str, says: str) -> None:
    (folder / name).unlink()
    if name == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(BaseNotLoadable, match=says):
        load(folder)


@pytest.mark.parametrize("place", ["/not/there", "./not-there", "a/b/c", "~/not-there"])
def test_a_folder_that_is_not_there_is_no_hub_id(place: str) -> None:
    with pytest.raises(BaseNotLoadable, match="there is no such folder"):
        load_base(place, None, "cpu", "auto")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_before_the_base_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BaseNotLoadable, match="device 'cuda'"):
        load_base(str(tmp_path), None, "cuda", "auto")


def test_a_tokenizer_that_cannot_write_token_by_token_is_refused(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    letters = {letter + end: ord(letter) for letter in "ab" for end in ("", "</w>")}
    (folder / "vocab.json").write_text(json.dumps(letters | {"<unk>": 0}))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "CTRLTokenizer"}')
    says = r"its tokenizer, CTRLTokenizer, is none of the tokenizers library.*Add a tokenizer\.json"
    with pytest.raises(BaseNotLoadable, match=says):
        load(folder)
    with pytest.raises(NotTrainable, match=says):
        load_for_training(folder, "causal_lm")
