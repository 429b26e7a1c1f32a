"""A reader of many adapters: what header and config decide is decided once, the rest each time."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Method
from adapters_core.errors import InvalidAdapter, NoEffect, NonFinite
from adapters_core.format import reading_plan
from adapters_core.format.read import _MAX_PLANS, Adapter, AdapterReader, read_adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import C3A, LoCA, LoRA, SHiRA, VeRA, WaveletFT
from made import random_adapter
from reading_parts import KEY
from tiny_bases import change_config, change_tensors

FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"
#: Of values alone, with integers, with what layers share, in more than one tensor a layer.
METHODS = [LoRA(r=2), LoCA(n=12), VeRA(r=4), SHiRA(r=2), WaveletFT(n=30), C3A(block_size=8)]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each header that is gone through."""
    made: list[str] = []
    parts_of = reading_plan.parts_of

    def counted(*args: object) -> object:
        made.append("parts")
        return parts_of(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reading_plan, "parts_of", counted)
    return made


def through(reader: AdapterReader, folder: Path) -> Adapter:
    return reader.read(folder / FILE, (folder / CONFIG).read_bytes())


def alone(folder: Path, spec: BaseSpec) -> Adapter:
    return read_adapter(folder / FILE, (folder / CONFIG).read_bytes(), spec)


def same(one: Adapter, other: Adapter) -> bool:
    tensors = [
        (tensor, other.layers[target][name])
        for target, layer in one.layers.items()
        for name, tensor in layer.items()
    ]
    facts = (one.description, dict(one.methods)) == (other.description, dict(other.methods))
    return facts and all(torch.equal(a, b) and a.dtype == b.dtype for a, b in tensors)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_adapters_of_one_recipe_are_read_as_each_alone(
    method: Method, llama_spec: BaseSpec, bases: BasisCache, tmp_path: Path, planned: list[str]
) -> None:
    reader = AdapterReader(llama_spec)
    shapes = {path: s for path, s in llama_spec.targets.items() if path.endswith("v_proj")}
    for number in range(3):
        methods, layers = random_adapter(method, shapes, bases, number)
        write_adapter(tmp_path / str(number), methods, layers, llama_spec)
    read = [through(reader, tmp_path / str(number)) for number in range(3)]
    assert len(planned) == 1
    assert all(same(read[n], alone(tmp_path / str(n), llama_spec)) for n in range(3))
    assert not same(read[0], read[1])


def test_values_are_checked_in_every_file(
    fourierft_folder: Path, llama_spec: BaseSpec, planned: list[str]
) -> None:
    reader = AdapterReader(llama_spec)
    through(reader, fourierft_folder)
    change_tensors(fourierft_folder, lambda tensors: tensors[KEY].fill_(torch.inf))
    with pytest.raises(NonFinite) as caught:
        through(reader, fourierft_folder)
    assert caught.value.param == KEY
    change_tensors(fourierft_folder, lambda ts: [tensor.zero_() for tensor in ts.values()])
    with pytest.raises(NoEffect):
        through(reader, fourierft_folder)
    assert len(planned) == 1


def test_a_file_that_is_longer_or_cut_off_is_refused_behind_a_whole_one(
    fourierft_folder: Path, llama_spec: BaseSpec
) -> None:
    reader = AdapterReader(llama_spec)
    through(reader, fourierft_folder)
    file = fourierft_folder / FILE
    whole = file.read_bytes()
    for content in (whole[:-4], whole + b"\0" * 4):
        file.write_bytes(content)
        with pytest.raises(InvalidAdapter, match="the tensors cover"):
            through(reader, fourierft_folder)
    file.write_bytes(whole)
    assert same(through(reader, fourierft_folder), alone(fourierft_folder, llama_spec))


def test_another_config_beside_the_same_header_is_another_recipe(
    fourierft_folder: Path, llama_spec: BaseSpec, planned: list[str]
) -> None:
    reader = AdapterReader(llama_spec)
    before = through(reader, fourierft_folder)
    change_config(fourierft_folder, {"scaling": 7.0})
    after = through(reader, fourierft_folder)
    assert len(planned) == 2
    assert before.description.method_config["scale"] == 150.0
    assert after.description.method_config["scale"] == 7.0
    change_config(fourierft_folder, {"n_frequency": 29})
    for _ in range(2):
        with pytest.raises(InvalidAdapter, match="expected"):
            through(reader, fourierft_folder)
    assert len(planned) == 4  # what was refused is not kept


def test_the_recipes_that_are_kept_are_bounded(
    fourierft_folder: Path, llama_spec: BaseSpec, planned: list[str]
) -> None:
    reader = AdapterReader(llama_spec)
    for scale in range(1, _MAX_PLANS + 2):
        change_config(fourierft_folder, {"scaling": float(scale)})
        through(reader, fourierft_folder)
    change_config(fourierft_folder, {"scaling": 1.0})
    through(reader, fourierft_folder)
    assert len(planned) == _MAX_PLANS + 2


def test_a_long_config_is_kept_by_none(
    fourierft_folder: Path, llama_spec: BaseSpec, planned: list[str]
) -> None:
    reader = AdapterReader(llama_spec)
    config = fourierft_folder / CONFIG
    config.write_text(config.read_text() + " " * (128 << 10))
    assert same(through(reader, fourierft_folder), through(reader, fourierft_folder))
    assert len(planned) == 2


def test_a_digest_that_is_given_is_the_descriptions(
    fourierft_folder: Path, llama_spec: BaseSpec
) -> None:
    config = (fourierft_folder / CONFIG).read_bytes()
    found = AdapterReader(llama_spec).read(fourierft_folder / FILE, config, digest="sha256:given")
    assert found.description.digest == "sha256:given"


def test_a_tensor_that_stays_keeps_nothing_else_of_its_file(
    fourierft_folder: Path, llama_spec: BaseSpec
) -> None:
    layers = alone(fourierft_folder, llama_spec).layers
    read = [tensor for layer in layers.values() for tensor in layer.values()]
    assert [t.untyped_storage().nbytes() for t in read] == [t.nbytes for t in read]


def test_numbers_of_two_dtypes_are_read_as_each_alone(
    fourierft_folder: Path, llama_spec: BaseSpec
) -> None:
    before = load_file(fourierft_folder / FILE)
    change_tensors(fourierft_folder, lambda tensors: tensors.update({KEY: tensors[KEY].double()}))
    layers = alone(fourierft_folder, llama_spec).layers
    read = [tensor for layer in layers.values() for tensor in layer.values()]
    assert all(tensor.dtype == torch.float32 for tensor in read)
    assert sorted(t.sum().item() for t in read) == sorted(t.sum().item() for t in before.values())
