"""What a base is for: told by its config, or set; and what cannot be served is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    RobertaForMaskedLM,
    ViTConfig,
)

import tiny
import tiny_encoders as te
from server.base.kinds import Kind, ServingTask, kind_of
from server.base.load_errors import BaseNotLoadable
from server.base.loading import load_base
from server.base.pooling import Pooling, pooling_of
from server.base.preparation import Preparation

BERT, LLAMA = BertConfig(), LlamaConfig()


@pytest.mark.parametrize(
    ("config", "architecture", "task", "is_sentence_transformer", "kind"),
    [
        (LLAMA, "LlamaForCausalLM", "auto", False, "causal LM"),
        (LLAMA, "LlamaForSequenceClassification", "auto", False, "text classifier"),
        (LLAMA, "LlamaModel", "auto", False, "embedder"),
        (LLAMA, "LlamaForCausalLM", "auto", True, "embedder"),
        (LLAMA, "LlamaForCausalLM", "embed", False, "embedder"),
        (GPT2Config(), "GPT2LMHeadModel", "auto", False, "causal LM"),
        (BERT, None, "auto", False, "causal LM"),
        (BERT, "BertForSequenceClassification", "auto", False, "text classifier"),
        (BERT, "BertForMaskedLM", "auto", False, "embedder"),
        (BERT, "BertForMaskedLM", "classify", False, "text classifier"),
        (BERT, "BertForMaskedLM", "generate", False, "causal LM"),
        (BERT, "BertModel", "auto", False, "embedder"),
        (ViTConfig(), "ViTForImageClassification", "auto", False, "image classifier"),
        (ViTConfig(), "ViTModel", "classify", False, "image classifier"),
    ],
)
def test_the_config_says_what_a_base_is_for(
    config: Any,
    architecture: str | None,
    task: ServingTask,
    is_sentence_transformer: bool,
    kind: Kind,
) -> None:
    config.architectures = architecture and [architecture]
    assert kind_of(config, task, is_sentence_transformer) == kind


def test_an_image_body_without_a_head_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="set task to classify"):
        kind_of(ViTConfig(architectures=["ViTModel"]), "auto", False)


def load(folder: Path, task: ServingTask = "auto") -> Any:
    return load_base(str(folder), "tiny", "cpu", "auto", task)


def test_an_untrained_head_gives_one_fingerprint(tmp_path: Path) -> None:
    RobertaForMaskedLM(te.config("roberta")).save_pretrained(tmp_path)
    te.tokenizer().save_pretrained(tmp_path)
    first, second = load(tmp_path, "classify"), load(tmp_path, "classify")
    assert first.spec.fingerprint == second.spec.fingerprint
    assert first.spec.head.untrained == set(first.spec.head.parameters)
    assert all(name.startswith("classifier.") for name in first.spec.head.untrained)


def test_a_base_that_lacks_part_of_its_body_is_refused(tmp_path: Path) -> None:
    te.save(tmp_path, "bert")
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BaseNotLoadable, match=r"no values for bert\.encoder\.layer\.1\.output"):
        load(tmp_path)


def test_code_that_comes_with_a_base_is_not_run(tmp_path: Path) -> None:
    te.save(tmp_path, "bert")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('this ran')")
    with pytest.raises(BaseNotLoadable):
        load(tmp_path)


def test_a_text_that_generates_is_loaded_as_before(tmp_path: Path) -> None:
    base = load(tiny.save_base(tmp_path))
    assert (base.kind, base.spec.head, base.pooling) == ("causal LM", None, None)


def test_a_classifier_needs_padding(tmp_path: Path) -> None:
    te.save(tmp_path, "bert")
    config = AutoConfig.from_pretrained(tmp_path)
    config.pad_token_id = None
    config.save_pretrained(tmp_path)
    assert load(tmp_path).model.config.pad_token_id == te.PAD  # the tokenizer's
    made = te.tokenizer()
    made.pad_token = None
    made.save_pretrained(tmp_path)
    with pytest.raises(BaseNotLoadable, match="pad_token_id"):
        load(tmp_path)


def modules(folder: Path, steps: list[str], pooling: dict[str, Any]) -> str:
    paths = ["", "1_Pooling", "2_Last"]
    listed = [
        {"type": f"sentence_transformers.models.{step}", "path": path}
        for step, path in zip(steps, paths, strict=False)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return str(folder)


USUAL = ["Transformer", "Pooling", "Normalize"]
STRIPS = Preparation(strip=True)
MEAN = {"pooling_mode_mean_tokens": True}


@pytest.mark.parametrize(
    ("steps", "config", "expected"),
    [
        (USUAL, {"pooling_mode_mean_tokens": True}, Pooling("mean", True, STRIPS)),
        (USUAL[:2], {"pooling_mode_lasttoken": True}, Pooling("lasttoken", False, STRIPS)),
        (USUAL, {"pooling_mode": "max"}, Pooling("max", True, STRIPS)),
    ],
)
def test_pooling_is_read(
    steps: list[str], config: dict[str, Any], expected: Pooling, tmp_path: Path
) -> None:
    assert pooling_of(modules(tmp_path, steps, config)) == expected


@pytest.mark.parametrize(
    ("steps", "config", "says"),
    [
        (["Transformer", "Pooling", "Dense"], {"pooling_mode_mean_tokens": True}, "Dense"),
        (USUAL, {"pooling_mode_weightedmean_tokens": True}, "weightedmean_tokens; one way"),
        (USUAL, {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "one way is"),
    ],
)
def test_pooling_that_is_not_served_is_refused(
    steps: list[str], config: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        pooling_of(modules(tmp_path, steps, config))


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": False}, (40, False)),
        ("sentence_roberta_config.json", {"do_lower_case": True}, (None, True)),
        ("sentence_bert_config.json", {"max_seq_length": None}, (None, False)),
    ],
)
def test_how_a_folders_texts_are_read_is_followed(
    file: str, content: dict[str, Any], expected: tuple[int | None, bool], tmp_path: Path
) -> None:
    source = modules(tmp_path, USUAL, MEAN)
    (tmp_path / file).write_text(json.dumps(content))
    found = pooling_of(source).preparation
    assert (found.max_length, found.lower) == expected


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "do_lower_case = 'yes'"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length = -1"),
        ("sentence_bert_config.json", {"model_args": {"x": 1}}, "model_args"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task"),
        ("config_sentence_transformers.json", {"model_type": "SparseEncoder"}, "SparseEncoder"),
        ("config_sentence_transformers.json", {"default_prompt_name": "q"}, "none of its prompts"),
        ("config_sentence_transformers.json", {"prompts": {"q": 1}}, "object of texts"),
        ("config_sentence_transformers.json", {"truncate_dim": 64}, "truncate_dim"),
        ("config_sentence_transformers.json", [1], "not a JSON object"),
    ],
)
def test_a_folders_setting_that_is_not_served_is_refused_by_name(
    file: str, content: Any, says: str, tmp_path: Path
) -> None:
    source = modules(tmp_path, USUAL, MEAN)
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=says):
        pooling_of(source)


def test_prompts_that_pooling_leaves_out_are_refused(tmp_path: Path) -> None:
    source = modules(tmp_path, USUAL, MEAN | {"include_prompt": False})
    assert pooling_of(source).preparation == STRIPS  # nothing to leave out
    file = tmp_path / "config_sentence_transformers.json"
    file.write_text(json.dumps({"prompts": {"query": "Represent: "}}))
    with pytest.raises(ValueError, match="include_prompt"):
        pooling_of(source)


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    te.save(tmp_path, "bert")
    half = load_base(str(tmp_path), "tiny", "cpu", "bfloat16")
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert half.spec.fingerprint == load(tmp_path).spec.fingerprint
