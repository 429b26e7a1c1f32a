"""Adapters of PEFT's own making on the tiny bases, and what PEFT itself answers with them.

Methods that PEFT has not are held against the base with their defining sums added.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

import tiny
from adapters_core.base.spec import spec_of, weight_of, weights_of
from adapters_core.contract.method import Method
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import CLoRA, FRoD, LoCA, WaveletFT
from live import CONFIG, FILE, Files
from made import CPU, random_adapter

#: Names of a base's linears: of the attention, and beside it.
_MODULES = {
    "llama": (["q_proj", "v_proj"], ["q_proj", "k_proj", "o_proj", "down_proj"]),
    "qwen3": (["q_proj", "v_proj"], ["q_proj", "k_proj", "o_proj", "up_proj"]),
    "gpt2": (["c_attn"], ["c_attn", "c_fc"]),
}


@contextmanager
def quiet() -> Iterator[None]:
    """PEFT warns of Conv1D, of its own use of transformers and of sparse tensors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Made:
    """An adapter as PEFT saved it, and PEFT's own model with it."""

    label: str
    files: Files
    model: Any

    @torch.no_grad()
    def logprobs(self, tokens: list[int]) -> Tensor:
        """Return PEFT's log-probabilities of what follows each token, `[T, V]`."""
        with quiet():
            logits: Tensor = self.model(input_ids=torch.tensor([tokens])).logits[0]
        return logits.log_softmax(-1)

    @torch.no_grad()
    def greedy(self, prompt: list[int], max_new_tokens: int) -> list[int]:
        """Return what PEFT's own `generate` adds to the prompt."""
        ids = torch.tensor([prompt])
        given = {"attention_mask": torch.ones_like(ids), "pad_token_id": tiny.EOS}
        with quiet():
            out = self.model.generate(
                input_ids=ids, max_new_tokens=max_new_tokens, do_sample=False, **given
            )
        new: list[int] = out[0, len(prompt) :].tolist()
        return new


def make(shape: str, number: int, folder: Path) -> Made:
    """Return adapter `number` of a base: every number differs, the kinds take turns."""
    label, config = _CONFIGS[number % len(_CONFIGS)](shape)
    config = _stronger(config, 1 + number / 40)
    if isinstance(config, Method):
        files, model = _ours(shape, config, number, folder)
        return Made(f"{label}-{number}", files, model.eval())
    with quiet():
        torch.manual_seed(number)
        model = get_peft_model(copy.deepcopy(tiny.model(shape)), config)
        _draw(model, number)
        model.save_pretrained(str(folder))
    return Made(f"{label}-{number}", _files(folder), model.eval())


def _stronger(config: PeftConfig | Method, by: float) -> PeftConfig | Method:
    """Return the config with its scale changed: adapters that share a bank need not share it."""
    for name in ("scale", "scaling", "alpha", "lora_alpha"):
        if hasattr(config, name):
            changed = by * getattr(config, name)
            if isinstance(config, Method):
                return dataclasses.replace(config, **{name: changed})
            setattr(config, name, changed)
    return config


def _files(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in (FILE, CONFIG)}


def _draw(model: nn.Module, seed: int) -> None:
    """Move every coefficient, so that answers differ; most methods start at nothing."""
    generator = torch.Generator().manual_seed(1000 + seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            size = next(size for part, size in _SIZES.items() if part in name)
            drawn = size * torch.randn(parameter.shape, generator=generator)
            parameter.data = drawn + (parameter.data if _is_kept(name) else 0)


def _is_kept(name: str) -> bool:
    """Return whether a coefficient's first value says something of the base."""
    return "magnitude" in name or "frod_" in name


#: Part of a parameter's name -> how far it is moved.
_SIZES = {
    "magnitude": 0.1,
    "lora_": 0.2,
    "fourierft_": 1.0,
    "waveft_": 1.0,
    "c3a_": 8.0,
    "shira_": 0.3,
    "vera_": 1.0,
    "tinylora_": 0.2,
    "frod_": 0.1,
}


def _ours(shape: str, method: Method, number: int, folder: Path) -> tuple[Files, nn.Module]:
    """Return an adapter of a method that PEFT has not, and the base with its defining sums added.

    Nothing of the fast ways takes part in the reference.
    """
    model = tiny.model(shape)
    spec = spec_of(model, "tiny")
    bases = BasisCache(CPU, weights_of(model, spec))
    shapes = {t: s for t, s in spec.targets.items() if t.endswith(tuple(_MODULES[shape][1]))}
    methods, layers = random_adapter(method, shapes, bases, number, 0.3)
    write_adapter(folder, methods, layers, spec)
    reference = copy.deepcopy(model).requires_grad_(False)
    for target, layer in layers.items():
        flat = torch.arange(shapes[target].out * shapes[target].in_)
        positions = flat // shapes[target].in_, flat % shapes[target].in_
        basis = bases.get(methods[target], shapes[target], target, layer)
        delta = methods[target].cells(layer, shapes[target], *positions, basis)
        weight = weight_of(reference.get_submodule(target))
        weight += delta.view(shapes[target]).float()
    return _files(folder), reference


def _fourierft(shape: str) -> tuple[str, PeftConfig]:
    kind: dict[str, Any] = {"n_frequency": 40, "scaling": 150.0, "task_type": "CAUSAL_LM"}
    return "fourierft", FourierFTConfig(target_modules=_MODULES[shape][0], **kind)


def _fourierft_wide(shape: str) -> tuple[str, PeftConfig]:
    names = _MODULES[shape][1]
    kind: dict[str, Any] = {"n_frequency": 30, "scaling": 120.0, "random_loc_seed": 5}
    kind["n_frequency_pattern"] = {names[0]: 50}
    return "fourierft-wide", FourierFTConfig(target_modules=names, task_type="CAUSAL_LM", **kind)


def _lora(shape: str) -> tuple[str, PeftConfig]:
    names = _MODULES[shape][0]
    return "lora", LoraConfig(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM")


def _lora_patterns(shape: str) -> tuple[str, PeftConfig]:
    names = _MODULES[shape][1]
    kind: dict[str, Any] = {"rank_pattern": {names[0]: 6}, "alpha_pattern": {names[-1]: 12}}
    return "lora-patterns", LoraConfig(
        r=3, lora_alpha=6, target_modules=names, task_type="CAUSAL_LM", **kind
    )


def _rslora(shape: str) -> tuple[str, PeftConfig]:
    names = _MODULES[shape][1]
    return "rslora", LoraConfig(
        r=4, lora_alpha=4, use_rslora=True, target_modules=names, task_type="CAUSAL_LM"
    )


def _dora(shape: str) -> tuple[str, PeftConfig]:
    names = _MODULES[shape][1]
    return "dora", LoraConfig(
        r=4, lora_alpha=4, use_dora=True, target_modules=names, task_type="CAUSAL_LM"
    )


def _waveft(shape: str) -> tuple[str, PeftConfig]:
    kind: dict[str, Any] = {"n_frequency": 60, "scaling": 2.0, "wavelet_family": "db2"}
    return "waveft", WaveFTConfig(
        target_modules=_MODULES[shape][1],
        task_type="CAUSAL_LM",
        proportional_parameters=True,
        **kind,
    )


def _haar(shape: str) -> tuple[str, PeftConfig]:
    kind: dict[str, Any] = {"n_frequency": 60, "scaling": 2.0}
    return "haar", WaveFTConfig(target_modules=_MODULES[shape][0], task_type="CAUSAL_LM", **kind)


def _c3a(shape: str) -> tuple[str, PeftConfig]:
    if shape == "gpt2":  # PEFT has it for nn.Linear alone
        return _haar(shape)
    return "c3a", C3AConfig(block_size=16, target_modules=_MODULES[shape][1], task_type="CAUSAL_LM")


def _shira(shape: str) -> tuple[str, PeftConfig]:
    if shape == "gpt2":
        return _haar(shape)
    return "shira", ShiraConfig(r=2, target_modules=_MODULES[shape][1], task_type="CAUSAL_LM")


def _vera(shape: str) -> tuple[str, PeftConfig]:
    return "vera", VeraConfig(r=8, target_modules=_MODULES[shape][1], task_type="CAUSAL_LM")


def _tinylora(shape: str) -> tuple[str, PeftConfig]:
    names = _MODULES[shape][1]
    return "tinylora", TinyLoraConfig(
        r=2, u=8, weight_tying=0.5, target_modules=names, task_type="CAUSAL_LM"
    )


def _frod(shape: str) -> tuple[str, PeftConfig]:
    names = _MODULES[shape][0]
    return "frod", FrodConfig(
        sparse_rate=0.01, target_modules=names, task_type="CAUSAL_LM", progressbar=False
    )


def _loca(shape: str) -> tuple[str, Method]:
    return "loca", LoCA(n=40, scale=2.0)


def _levels(shape: str) -> tuple[str, Method]:
    return "waveletft-levels", WaveletFT(n=40, scale=4.0, wavelet="db2", num_levels=2)


def _clora(shape: str) -> tuple[str, Method]:
    return "clora", CLoRA()


def _small_frod(shape: str) -> tuple[str, Method]:
    return "frod-small", FRoD(sparse_rate=0.01)


_CONFIGS: tuple[Callable[[str], tuple[str, PeftConfig | Method]], ...] = (
    _fourierft,
    _lora,
    _fourierft_wide,
    _lora_patterns,
    _rslora,
    _dora,
    _waveft,
    _haar,
    _c3a,
    _shira,
    _vera,
    _tinylora,
    _frod,
    _loca,
    _levels,
    _clora,
    _small_frod,
)
#: How many kinds there are: the numbers from 0 to this one have one of each.
KINDS = len(_CONFIGS)
