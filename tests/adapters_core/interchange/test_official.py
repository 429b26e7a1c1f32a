"""Checkpoints of the FourierFT authors' code, beside their layer's formula written out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Coefficients, Shape
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import AdapterError, InvalidAdapter, UnusedTensors
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.interchange.official import is_official, read_official
from adapters_core.methods import FourierFT
from made import CPU
from tiny_bases import relative

WIDTH, N, SCALE = 96, 30, 49.0
PATHS = [f"model.layers.{i}.self_attn.{name}" for i in range(2) for name in ("q_proj", "o_proj")]
CONFIG = {
    "peft_type": "FOURIER",
    "auto_mapping": None,
    "base_model_name_or_path": "somewhere/llama",
    "revision": None,
    "task_type": "CAUSAL_LM",
    "inference_mode": True,
    "n_frequency": N,
    "scale": SCALE,
    "fan_in_fan_out": False,
    "target_modules": ["q_proj", "o_proj"],
    "bias": "none",
    "modules_to_save": None,
    "init_fourier_weights": True,
    "layers_to_transform": None,
    "layers_pattern": None,
    "n_frequency_pattern": {},
    "alpha_pattern": {},
    "megatron_config": None,
    "megatron_core": "megatron.core",
}


def drawn(seed: int, n: int = N, width: int = WIDTH) -> Tensor:
    """Return the authors' positions under --share_entry, `[2, n]`."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randperm(width * width, generator=generator)[:n]
    return torch.stack([flat // width, flat % width])


def their_update(spectrum: Tensor, indices: Tensor, scale: float = SCALE) -> Tensor:
    """Return what their forward pass multiplies rows by, x @ update."""
    dense = torch.zeros(WIDTH, WIDTH, dtype=torch.float64)
    dense[indices[0], indices[1]] = spectrum.double()
    return torch.fft.ifft2(dense).real * scale


def spectra(suffix: str = ".default", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    keys = [f"base_model.model.{path}.spectrum{suffix}" for path in PATHS]
    return {key: torch.randn(N, generator=generator).to(dtype) for key in keys}


@pytest.fixture
def load(
    tmp_path: Path, llama_spec: BaseSpec
) -> Callable[..., tuple[dict[str, FourierFT], dict[str, Coefficients]]]:
    def load_file(
        tensors: dict[str, Tensor], entry_seed: int | None = 2024, **changes: Any
    ) -> tuple[dict[str, FourierFT], dict[str, Coefficients]]:
        file = tmp_path / "official.safetensors"
        save_file(tensors, file)
        config = PeftConfig.parse(json.dumps(CONFIG | changes).encode())
        assert is_official(config)
        return read_official(file, config, llama_spec, entry_seed)

    return load_file


@pytest.mark.parametrize("suffix", [".default", ""])
@pytest.mark.parametrize("seed", [2024, 5])
def test_our_update_is_theirs_transposed(suffix: str, seed: int, load: Any) -> None:
    tensors = spectra(suffix)
    methods, layers = load(tensors, seed)
    assert list(layers) == PATHS
    for path, spectrum in zip(PATHS, tensors.values(), strict=True):
        assert torch.equal(layers[path]["fourierft_spectrum"], spectrum)
        method, shape = methods[path], Shape(WIDTH, WIDTH)
        delta = method.delta(layers[path], shape, method.basis(shape, CPU, torch.float32))
        assert relative(delta, their_update(spectrum, drawn(seed)).T) <= 1e-6
        assert relative(delta, their_update(spectrum, drawn(seed))) > 0.5


def test_the_written_adapter_reads_back_and_serves_the_same(
    load: Any, tmp_path: Path, llama_spec: BaseSpec, read: Callable[..., Adapter]
) -> None:
    methods, layers = load(spectra())
    write_adapter(tmp_path / "ours", methods, layers, llama_spec)
    adapter = read(tmp_path / "ours")
    assert adapter.methods == methods
    assert adapter.description.method_config == {
        "n": N,
        "scale": SCALE,
        "seed": 2024,
        "transposed": True,
    }
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert config["entry_seed"] == 2024
    assert config["random_loc_seed"] is None  # PEFT cannot draw from it, so it refuses the file


def test_two_orders_of_positions_share_no_bank() -> None:
    shape = Shape(6, 8)
    plain, turned = FourierFT(n=5), FourierFT(n=5, transposed=True)
    assert plain.signature(shape) != turned.signature(shape)
    assert plain.positions_digest(shape) != turned.positions_digest(shape)


def test_half_precision_spectra_keep_their_values(load: Any) -> None:
    tensors = spectra(dtype=torch.bfloat16)
    _, layers = load(tensors)
    for path, spectrum in zip(PATHS, tensors.values(), strict=True):
        assert torch.equal(layers[path]["fourierft_spectrum"], spectrum.float())


def test_indices_in_the_file_prove_the_scripts_seed(load: Any) -> None:
    tensors = spectra()
    for path in PATHS:
        tensors[f"base_model.model.{path}.indices.default"] = drawn(2024)
    methods, _ = load(tensors, None)
    assert {method.seed for method in methods.values()} == {2024}
    with pytest.raises(InvalidAdapter, match="not those of entry seed 7"):
        load(tensors, 7)


def test_positions_of_a_layers_own_are_refused(load: Any) -> None:
    tensors = spectra()
    for number, path in enumerate(PATHS):
        tensors[f"base_model.model.{path}.indices.default"] = drawn(number)
    with pytest.raises(InvalidAdapter, match="cannot be written as FourierFT"):
        load(tensors, None)


def test_unknown_positions_are_refused_with_what_to_do(load: Any) -> None:
    with pytest.raises(InvalidAdapter, match=r"--entry-seed \(2024.*positions are lost"):
        load(spectra(), None)


def key(path: str, name: str = "spectrum.default") -> str:
    return f"base_model.model.{path}.{name}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({key("model.layers.0.mlp.up_proj"): torch.ones(N)}, "180 x 96; .* adapts square layers"),
        ({key("model.layers.0.self_attn.k_proj"): torch.ones(N)}, "32 x 96"),
        ({key(PATHS[0]): torch.ones(N + 1)}, r"\[31\]; n_frequency wants \[30\]"),
        ({key(PATHS[0]): torch.ones(N, 1)}, r"\[30, 1\]"),
        ({key(PATHS[0]): torch.ones(N, dtype=torch.int32)}, "int32"),
        ({key(PATHS[0]): torch.full((N,), torch.nan)}, "NaN"),
        ({key(PATHS[0], "indices.default"): torch.ones(2, N)}, r"float32 \[2, 30\]"),
        ({key(PATHS[0], "indices.default"): torch.ones(2, 3, dtype=torch.int64)}, r"\[2, 3\]"),
        ({key(PATHS[0], "spectrum"): torch.ones(N)}, "two tensors called spectrum"),
        (
            {key("model.layers.1.self_attn.v_proj", "indices"): torch.ones(2, N).long()},
            "indices and no spectrum",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    changes: dict[str, Tensor], reason: str, load: Any
) -> None:
    with pytest.raises(AdapterError, match=reason):
        load(spectra() | changes)


@pytest.mark.parametrize(
    "name",
    [
        key(PATHS[0], "base_layer.weight"),
        "base_model.model.classifier.weight",
        key("model.layers.9.self_attn.q_proj"),
        "spectrum",
    ],
)
def test_anything_else_in_the_file_is_refused_by_name(name: str, load: Any) -> None:
    with pytest.raises(UnusedTensors, match="is no spectrum of a layer") as caught:
        load(spectra() | {name: torch.ones(3)})
    assert caught.value.param == name


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n_frequency_pattern": {"q_proj": 5}}, "n_frequency_pattern"),  # their scale, too
        ({"alpha_pattern": {"q_proj": 5}}, "alpha_pattern"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save"),
        ({"scale": "much"}, "scale"),
        ({"n_frequency": 0}, "n_frequency"),
        ({"n_frequency": 2**40}, "n_frequency"),
    ],
)
def test_configs_that_are_not_served_are_refused(
    changes: dict[str, Any], field: str, load: Any
) -> None:
    with pytest.raises(AdapterError) as caught:
        load(spectra(), **changes)
    assert caught.value.param == field


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_torch_does_not_take_is_refused(seed: int, load: Any) -> None:
    with pytest.raises(InvalidAdapter, match=str(seed)):
        load(spectra(), seed)


def test_both_seeds_in_one_config_are_refused(
    fourierft_folder: Path, read: Callable[..., Adapter]
) -> None:
    file = fourierft_folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"entry_seed": 3}))
    with pytest.raises(InvalidAdapter, match="exclude each other"):
        read(fourierft_folder)
