"""Heads of classifiers in coefficient files: what PEFT writes is read, all else is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tiny_encoders as te
from adapters_core.base.heads import HeadSpec, clear_untrained, head_spec_of
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.errors import AdapterError, InvalidAdapter, TooLarge, UnusedTensors
from adapters_core.format.keys import PREFIX
from adapters_core.format.read import Adapter, read_adapter
from live import CONFIG, FILE

Change = Callable[[dict[str, Tensor], dict[str, Any]], object]
WEIGHT, BIAS = PREFIX + "classifier.weight", PREFIX + "classifier.bias"


def spec(shape: str) -> BaseSpec:
    model = te.model(shape)
    return replace(spec_of(model, "tiny"), head=head_spec_of(model))


def read(folder: Path, base: BaseSpec) -> Adapter:
    return read_adapter(folder / FILE, (folder / CONFIG).read_bytes(), base)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    te.make(te.model("bert"), te.configs("bert", "SEQ_CLS", None)[0], tmp_path / "a", 0)
    return tmp_path / "a"


def change(folder: Path, how: Change) -> Path:
    tensors, config = load_file(folder / FILE), json.loads((folder / CONFIG).read_text())
    how(tensors, config)
    save_file(tensors, folder / FILE)
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("shape", te.CLASSIFIERS)
def test_a_head_is_all_that_stands_beside_the_body(shape: str) -> None:
    found = head_spec_of(te.model(shape))
    names = {
        "bert": {"classifier.weight", "classifier.bias"},
        "roberta": {
            f"classifier.{m}.{p}" for m in ("dense", "out_proj") for p in ("weight", "bias")
        },
        "modernbert": {
            *("head.dense.weight", "head.norm.weight", "classifier.weight", "classifier.bias"),
        },
    }
    assert set(found.parameters) == names[shape]
    assert {found.parameters[name][0] for name in found.label_rows} == {3}
    assert found.num_labels == 3


@pytest.mark.parametrize("shape", te.CLASSIFIERS)
@pytest.mark.parametrize("number", range(4))
def test_what_peft_saves_for_a_classifier_is_read(shape: str, number: int, tmp_path: Path) -> None:
    config = te.configs(shape, "SEQ_CLS", None)[number]
    made = te.make(te.model(shape), config, tmp_path / "a", number)
    head = read(tmp_path / "a", spec(shape)).head
    assert head is not None
    assert head.num_labels == 3
    saved = dict(
        made.model.base_model.model.classifier.modules_to_save["default"].named_parameters()
    )
    assert {f"classifier.{name}" for name in saved} == set(head.tensors)
    for name, value in saved.items():
        assert torch.equal(head.tensors[f"classifier.{name}"], value)
    assert head.size_bytes == sum(4 * value.numel() for value in saved.values())


def test_part_of_a_head_may_be_saved(tmp_path: Path) -> None:
    config = te.configs("roberta", None, ["out_proj"])[0]
    config.target_modules = {"query"}
    te.make(te.model("roberta"), config, tmp_path / "a", 0)
    head = read(tmp_path / "a", spec("roberta")).head
    assert head is not None
    assert set(head.tensors) == {"classifier.out_proj.weight", "classifier.out_proj.bias"}


def test_an_adapter_without_a_head_uses_the_bases(tmp_path: Path) -> None:
    te.make(te.model("bert"), te.configs("bert", None, None)[0], tmp_path / "a", 0)
    assert read(tmp_path / "a", spec("bert")).head is None


def narrowed(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    tensors[WEIGHT] = tensors[WEIGHT][:, 1:].contiguous()


def relabelled(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    tensors[WEIGHT] = tensors[WEIGHT][:2].contiguous()


def enormous(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    tensors[WEIGHT] = torch.zeros(40_000, 48, dtype=torch.float16)
    tensors[BIAS] = torch.zeros(40_000)


def head_only(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    for key in [key for key in tensors if "lora" in key]:
        del tensors[key]


@pytest.mark.parametrize(
    ("how", "error", "param"),
    [
        (narrowed, InvalidAdapter, WEIGHT),
        (relabelled, InvalidAdapter, BIAS),
        (enormous, TooLarge, BIAS),
        (head_only, InvalidAdapter, "file"),
        (lambda t, c: t.pop(BIAS), InvalidAdapter, BIAS),
        (lambda t, c: t.update({WEIGHT: t[WEIGHT].to(torch.int32)}), InvalidAdapter, WEIGHT),
        (lambda t, c: t.update({WEIGHT: t[WEIGHT] * torch.nan}), AdapterError, WEIGHT),
        (lambda t, c: t.update({WEIGHT + "2": t[WEIGHT].clone()}), InvalidAdapter, "classifier"),
        (lambda t, c: t.update({PREFIX + "x": t[WEIGHT].clone()}), UnusedTensors, PREFIX + "x"),
        (lambda t, c: c.update(modules_to_save=None), InvalidAdapter, "classifier"),
        (lambda t, c: c.update(modules_to_save=["pooler"]), InvalidAdapter, "modules_to_save"),
        (lambda t, c: c.update(modules_to_save="classifier"), InvalidAdapter, "modules_to_save"),
        (lambda t, c: c.update(modules_to_save=[""]), InvalidAdapter, "modules_to_save"),
        (lambda t, c: c.update(id2label={"0": "a"}), InvalidAdapter, "id2label"),
        (lambda t, c: c.update(id2label=["a", "b", "c"]), InvalidAdapter, "id2label"),
        (lambda t, c: c.update(id2label={"0": "a", "1": 2, "2": "c"}), InvalidAdapter, "id2label"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    bert: Path, how: Change, error: type[AdapterError], param: str
) -> None:
    with pytest.raises(error) as caught:
        read(change(bert, how), spec("bert"))
    assert caught.value.param == param


def test_the_config_may_name_the_labels(bert: Path) -> None:
    names = {"0": "a", "2": "c", "1": "b"}
    adapter = read(change(bert, lambda t, c: c.update(id2label=names)), spec("bert"))
    assert adapter.labels == ["a", "b", "c"]


def test_a_replaced_layer_is_not_adapted_too(bert: Path) -> None:
    def both(tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
        tensors[PREFIX + "classifier.lora_A.weight"] = torch.ones(3, 48)
        tensors[PREFIX + "classifier.lora_B.weight"] = torch.ones(3, 3)
        config["target_modules"] = "all-linear"

    with pytest.raises(InvalidAdapter, match="the file has more for it: lora_A"):
        read(change(bert, both), spec("bert"))


def test_a_base_without_a_trained_head_needs_one(bert: Path, tmp_path: Path) -> None:
    base = spec("bert")
    assert isinstance(base.head, HeadSpec)
    bare = replace(base, head=replace(base.head, untrained=frozenset(base.head.parameters)))
    assert read(bert, bare).head is not None
    te.make(te.model("bert"), te.configs("bert", None, None)[0], tmp_path / "b", 0)
    with pytest.raises(InvalidAdapter, match="the base has no values for it"):
        read(tmp_path / "b", bare)


def test_what_a_base_has_no_values_for_does_not_move_its_fingerprint() -> None:
    prints = set()
    for seed in (1, 2):
        model = te.model("bert")
        with torch.no_grad():
            model.classifier.weight.normal_(generator=torch.Generator().manual_seed(seed))
        clear_untrained(model, ["classifier.weight"])
        prints.add(spec_of(model, "tiny").fingerprint)
    assert len(prints) == 1
