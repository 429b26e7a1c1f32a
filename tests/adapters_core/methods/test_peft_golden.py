"""Files that PEFT wrote for one linear of every awkward shape, against PEFT's own delta.

The tiny models of test_peft.py have friendly shapes; wavelets pad odd ones, transforms of prime
length take other code, and 2048 is where a float32 transform went silently wrong.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    C3AConfig,
    FourierFTConfig,
    FrodConfig,
    LoraConfig,
    PeftConfig,
    ShiraConfig,
    TinyLoraConfig,
    VeraConfig,
    WaveFTConfig,
    get_peft_model,
)
from torch import Tensor, nn

from adapters_core.base.spec import spec_of, weights_of
from adapters_core.format.read import Adapter
from adapters_core.layers.basis_cache import BasisCache
from made import CPU
from tiny_bases import relative, without_warnings

SHAPES = {
    "odd": (45, 77),
    "tall": (180, 60),
    "wide": (48, 96),
    "prime": (53, 31),
    "one_in": (70, 1),
    "one_out": (1, 70),
    "2048": (2048, 2048),
}
#: What PEFT refuses itself, or what takes it minutes.
NOT = {("c3a", "odd"), ("c3a", "prime"), ("c3a", "one_in"), ("c3a", "one_out"), ("c3a", "2048")}
NOT |= {("shira", "one_in"), ("shira", "one_out"), ("frod", "2048"), ("frod", "one_in")}
CONFIGS: dict[str, Callable[[], PeftConfig]] = {
    "fourierft": lambda: FourierFTConfig(n_frequency=50, scaling=150.0, target_modules=["proj"]),
    "fourierft-seed": lambda: FourierFTConfig(
        n_frequency=70, scaling=-3.0, random_loc_seed=2024, target_modules=["proj"]
    ),
    "waveft": lambda: WaveFTConfig(n_frequency=50, target_modules=["proj"]),
    "waveft-db4": lambda: WaveFTConfig(
        n_frequency=50, wavelet_family="db4", target_modules=["proj"]
    ),
    "waveft-sym6": lambda: WaveFTConfig(
        n_frequency=50, wavelet_family="sym6", target_modules=["proj"]
    ),
    "waveft-coif2": lambda: WaveFTConfig(
        n_frequency=50, wavelet_family="coif2", target_modules=["proj"]
    ),
    "waveft-plain": lambda: WaveFTConfig(n_frequency=50, use_idwt=False, target_modules=["proj"]),
    "c3a": lambda: C3AConfig(block_size=12, target_modules=["proj"]),
    "shira": lambda: ShiraConfig(r=1, target_modules=["proj"]),
    "lora": lambda: LoraConfig(r=4, lora_alpha=7, target_modules=["proj"]),
    "dora": lambda: LoraConfig(r=4, lora_alpha=7, use_dora=True, target_modules=["proj"]),
    "vera": lambda: VeraConfig(r=4, target_modules=["proj"]),
    "vera-seed": lambda: VeraConfig(r=4, save_projection=False, target_modules=["proj"]),
    "tinylora": lambda: TinyLoraConfig(r=2, u=5, target_modules=["proj"]),
    "frod": lambda: FrodConfig(sparse_rate=0.02, target_modules=["proj"], progressbar=False),
}


class Net(nn.Module):
    """One linear."""

    def __init__(self, out: int, in_: int) -> None:
        super().__init__()
        torch.manual_seed(out + in_)
        self.proj = nn.Linear(in_, out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.proj(x)
        return y


def cases() -> list[Any]:
    return [
        pytest.param(CONFIGS[name], SHAPES[shape], id=f"{name}-{shape}")
        for name in CONFIGS
        for shape in SHAPES
        if (name, shape) not in NOT
    ]


def theirs_of(net: nn.Module, config: PeftConfig, folder: Path) -> Tensor:
    """Return PEFT's delta of drawn coefficients, which are saved to the folder."""
    with without_warnings():
        model = get_peft_model(net, config)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    with without_warnings():
        model.save_pretrained(str(folder))
        module = model.base_model.model.proj
        if getattr(config, "use_dora", False):
            before = module.base_layer.weight.detach().double()
            module.merge()
            return module.base_layer.weight.detach().double() - before
        delta: Tensor = module.get_delta_weight("default").detach()
    return delta.to_dense()


@pytest.mark.parametrize(("config", "shape"), cases())
def test_delta_is_pefts(
    config: Callable[[], PeftConfig],
    shape: tuple[int, int],
    tmp_path: Path,
    read: Callable[..., Adapter],
) -> None:
    net = Net(*shape).requires_grad_(False)
    spec = spec_of(net, "net")
    bases = BasisCache(CPU, weights_of(Net(*shape), spec))
    with without_warnings():
        made = config()
    theirs = theirs_of(net, made, tmp_path)
    adapter = read(tmp_path, spec=spec)
    bases.check(adapter.methods, adapter.layers)
    method, layer = adapter.methods["proj"], adapter.layers["proj"]
    basis = bases.get(method, spec.targets["proj"], "proj", layer)
    ours = method.delta(layer, spec.targets["proj"], basis)
    assert theirs.abs().max() > 0
    assert relative(ours, theirs) <= 1e-6
