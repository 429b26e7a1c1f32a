"""Adapters of PEFT's own making on the tiny bases, and what PEFT itself answers with them."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import FourierFTConfig, LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn

import tiny
from live import CONFIG, FILE, Files

#: Names of a base's linears: of the attention, and beside it.
_MODULES = {
    "llama": (["q_proj", "v_proj"], ["q_proj", "k_proj", "o_proj", "down_proj"]),
    "qwen3": (["q_proj", "v_proj"], ["q_proj", "k_proj", "o_proj", "up_proj"]),
    "gpt2": (["c_attn"], ["c_attn", "c_fc"]),
}


@dataclass(frozen=True)
class Made:
    """An adapter as PEFT saved it, and PEFT's own model with it."""

    label: str
    files: Files
    model: Any

    @torch.no_grad()
    def logprobs(self, tokens: list[int]) -> Tensor:
        """Return PEFT's log-probabilities of what follows each token, `[T, V]`."""
        logits: Tensor = self.model(input_ids=torch.tensor([tokens])).logits[0]
        return logits.log_softmax(-1)

    @torch.no_grad()
    def greedy(self, prompt: list[int], max_new_tokens: int) -> list[int]:
        """Return what PEFT's own `generate` adds to the prompt."""
        ids = torch.tensor([prompt])
        given = {"attention_mask": torch.ones_like(ids), "pad_token_id": tiny.EOS}
        out = self.model.generate(
            input_ids=ids, max_new_tokens=max_new_tokens, do_sample=False, **given
        )
        new: list[int] = out[0, len(prompt) :].tolist()
        return new


def make(shape: str, number: int, folder: Path) -> Made:
    """Return adapter `number` of a base: every number differs, the kinds take turns."""
    label, config = _CONFIGS[number % len(_CONFIGS)](shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PEFT's, about Conv1D and its own use of transformers
        torch.manual_seed(number)
        model = get_peft_model(copy.deepcopy(tiny.model(shape)), config)
        _draw(model, number)
        model.save_pretrained(str(folder))
    files = {name: (folder / name).read_bytes() for name in (FILE, CONFIG)}
    return Made(f"{label}-{number}", files, model.eval())


def _draw(model: nn.Module, seed: int) -> None:
    """Give every coefficient a value; a fresh LoRA is zero."""
    generator = torch.Generator().manual_seed(1000 + seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "fourierft_" in name:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data = drawn * (0.2 if "lora_" in name else 1.0)


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


_CONFIGS: tuple[Callable[[str], tuple[str, PeftConfig]], ...] = (
    _fourierft,
    _lora,
    _fourierft_wide,
    _lora_patterns,
    _rslora,
)
#: How many kinds there are: the numbers from 0 to this one have one of each.
KINDS = len(_CONFIGS)
