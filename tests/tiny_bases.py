"""Tiny random models whose widths are no powers of two, and small things the tests share."""

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from adapters_core.contract.method import Method, Shape

_GQA = {
    "vocab_size": 131,
    "hidden_size": 96,
    "intermediate_size": 180,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """Return a Llama of width 96 whose keys and values are 32 wide."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**(_GQA | changes))).eval()


def tiny_qwen3(seed: int = 0, **changes: Any) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**(_GQA | changes))).eval()


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """Return a GPT-2 of width 60; its linears are `Conv1D`, `[in, out]`."""
    torch.manual_seed(seed)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=131, n_embd=60, n_layer=2, n_head=4, n_positions=64)
    ).eval()


def tiny_mixtral(seed: int = 0) -> MixtralForCausalLM:
    """Return a mixture of three experts, two of which see a token."""
    torch.manual_seed(seed)
    experts = {"num_local_experts": 3, "num_experts_per_tok": 2}
    return MixtralForCausalLM(MixtralConfig(**(_GQA | experts))).eval()


def tiny_gemma3(seed: int = 0) -> Gemma3ForCausalLM:
    """Return a Gemma 3 of width 96, whose embedding multiplies its rows by a scale."""
    torch.manual_seed(seed)
    return Gemma3ForCausalLM(Gemma3TextConfig(**_GQA)).eval()


def tiny_gpt_oss(seed: int = 0) -> GptOssForCausalLM:
    """Return a gpt-oss of width 96; its experts are stored `[in, out]`, with biases."""
    torch.manual_seed(seed)
    experts = {"num_local_experts": 3, "num_experts_per_tok": 2}
    return GptOssForCausalLM(GptOssConfig(**(_GQA | experts))).eval()


def tiny_opt(seed: int = 0) -> OPTForCausalLM:
    """Return an OPT of width 60, whose linears all have biases."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 60, "ffn_dim": 100, "num_hidden_layers": 2, "num_attention_heads": 4}
    return OPTForCausalLM(
        OPTConfig(vocab_size=131, word_embed_proj_dim=60, max_position_embeddings=64, **sizes)
    ).eval()


TINY = {"llama": tiny_llama, "qwen3": tiny_qwen3, "gpt2": tiny_gpt2}


def peft_adapter(model: nn.Module, config: PeftConfig, folder: Path, seed: int = 1) -> PeftModel:
    """Return PEFT's model of `config` over a copy of `model` with every coefficient drawn; save it.

    Fresh adapters are zero, so the coefficients are drawn here.
    """
    torch.manual_seed(seed)
    with without_warnings():
        peft_model = get_peft_model(copy.deepcopy(model), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in peft_model.named_parameters():
        if "lora_" in name or "fourierft_" in name:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data = (drawn * (0.2 if "lora_" in name else 1.0)).to(parameter.dtype)
    with without_warnings():
        peft_model.save_pretrained(str(folder))
    return peft_model.eval()


@contextmanager
def without_warnings() -> Iterator[None]:
    """PEFT warns of its own use of transformers, of Conv1D and of bias; none of it is ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def random_layer(method: Method, shape: Shape, seed: int = 0) -> dict[str, Tensor]:
    """Return coefficients with nothing zero; positions, being integers, as `init` draws them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(fresh.shape, generator=generator) if fresh.is_floating_point() else fresh
        for name, fresh in method.init(shape, generator).items()
    }


def relative(got: Tensor, true: Tensor) -> float:
    """Return the error's norm over the true norm."""
    got, true = got.detach().double(), true.detach().double()
    return float((got - true).norm() / true.norm())


def weights_sha256(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def change_tensors(folder: Path, change: Any) -> None:
    """Rewrite a folder's weights as `change` leaves them."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def change_config(folder: Path, changes: Mapping[str, Any]) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(changes)))
