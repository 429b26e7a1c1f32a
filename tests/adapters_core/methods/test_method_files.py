"""Every registered method's files: read back as they were, and loaded by PEFT."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PeftType

from adapters_core.base.spec import BaseSpec, weights_of
from adapters_core.contract.method import Method
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from made import random_adapter
from method_cases import CPU, each_method
from tiny_bases import relative, tiny_llama, without_warnings


def written(
    method: Method, spec: BaseSpec, folder: Path
) -> tuple[dict[str, Method], dict[str, dict[str, torch.Tensor]], BasisCache]:
    """Return what was written to `folder`: an adapter of q and v of a tiny Llama."""
    bases = BasisCache(CPU, weights_of(tiny_llama(), spec))
    targets = [t for t in spec.targets if t.endswith(("q_proj", "v_proj"))]
    shapes = {target: spec.targets[target] for target in targets}
    methods, layers = random_adapter(method, shapes, bases, 1)
    write_adapter(folder, methods, layers, spec)
    return methods, layers, bases


@each_method
def test_file_round_trip(
    method: Method, llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    methods, layers, bases = written(method, llama_spec, tmp_path)
    adapter = read(tmp_path)
    bases.check(adapter.methods, adapter.layers)
    assert adapter.description.base_verified
    assert adapter.description.method == method.name
    assert set(adapter.layers) == set(layers)
    for target, layer in layers.items():
        assert all(torch.equal(adapter.layers[target][name], layer[name]) for name in layer)
        shape, theirs = llama_spec.targets[target], adapter.methods[target]
        basis = bases.get(theirs, shape, target, adapter.layers[target])
        want = methods[target].delta(layer, shape, bases.get(methods[target], shape, target))
        assert torch.equal(theirs.delta(adapter.layers[target], shape, basis), want)
    numbers = {id(t): t.numel() for layer in layers.values() for t in layer.values()}
    assert adapter.description.num_coefficients == sum(numbers.values())
    assert adapter.description.size_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size


@each_method
def test_writing_leaves_nothing_else(method: Method, llama_spec: BaseSpec, tmp_path: Path) -> None:
    written(method, llama_spec, tmp_path / "new" / "folder")
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}


def peft_delta(module: torch.nn.Module) -> torch.Tensor:
    """Return what PEFT adds to the weight; of DoRA `get_delta_weight` gives the LoRA alone."""
    with without_warnings():  # torch's, of SHiRA's sparse delta
        delta = module.get_delta_weight("default").to_dense().detach()
    if not getattr(module, "use_dora", {}).get("default"):
        return delta
    golden = module.get_base_layer().weight.detach().clone()
    module.merge()
    return module.get_base_layer().weight.detach() - golden


@each_method
def test_peft_loads_what_we_wrote(method: Method, llama_spec: BaseSpec, tmp_path: Path) -> None:
    methods, layers, bases = written(method, llama_spec, tmp_path)
    peft_type = json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"]
    if peft_type not in PeftType.__members__:
        pytest.skip(f"PEFT has no {peft_type}")
    with without_warnings():
        peft_model = PeftModel.from_pretrained(tiny_llama(), str(tmp_path))
    for target, layer in layers.items():
        shape = llama_spec.targets[target]
        module = peft_model.base_model.model.get_submodule(target)
        theirs = peft_delta(module)
        basis = bases.get(methods[target], shape, target, layer)
        ours = methods[target].delta(layer, shape, basis)
        assert relative(ours, theirs) <= 1e-6
