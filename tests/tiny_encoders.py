"""Tiny classifiers and embedders of real shapes, and adapters that PEFT itself has written."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft import (
    FourierFTConfig,
    LoraConfig,
    PeftConfig,
    PeftModel,
    WaveFTConfig,
    get_peft_model,
)
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    ConvBertConfig,
    DebertaConfig,
    DebertaV2Config,
    FNetConfig,
    GPT2Config,
    ModernBertConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    RobertaConfig,
    Swinv2Config,
    ViTConfig,
    ViTImageProcessorPil,
)

from server.base.loading import Base, make_encoder

#: 256 bytes, and what encoders put around and behind a text. RoBERTa's padding is 1.
CLS, SEP, PAD = 256, 257, 258
VOCABULARY = 259
MAX_LENGTH = 96
LABELS = ("bad", "fair", "good")
CLASSIFIERS = ("bert", "roberta", "modernbert")
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
    "pad_token_id": PAD,
    "attn_implementation": "sdpa",
}
_IMAGE = {"image_size": 32, "patch_size": 8, "num_labels": 4}
PairForm = Literal["bert", "roberta", "plain"]
_PAIRS: dict[PairForm, str] = {
    "bert": "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    "roberta": "[CLS] $A [SEP] [SEP] $B [SEP]",
    "plain": "$A $B",
}
#: Ends of the paths of what the tests adapt.
TARGETS = {
    "bert": ["query", "value", "pooler.dense"],
    "roberta": ["query", "value", "dense"],
    "modernbert": ["Wqkv", "Wo"],
    "vit": ["q_proj", "v_proj"],
}


def tokenizer(
    max_length: int = MAX_LENGTH, pairs: PairForm = "roberta", **more: Any
) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a byte, between [CLS] and [SEP].

    Args:
        max_length: of a text.
        pairs: how two texts are joined: with types (BERT), two separators (RoBERTa), or nothing.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = {"[CLS]": CLS, "[SEP]": SEP, "[PAD]": PAD}
    vocabulary = {char: i for i, char in enumerate(alphabet)} | specials
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=_PAIRS[pairs],
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    types = ["token_type_ids"] if pairs == "bert" else []
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        model_max_length=max_length,
        model_input_names=["input_ids", *types, "attention_mask"],
        **more,
    )


def config(shape: str, **changes: Any) -> Any:
    """Return the config of a classifier with three labels, or of a ViT with four."""
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    sizes = _SIZES | ({} if "num_labels" in changes else labels) | changes
    if shape == "bert":
        return BertConfig(**sizes)
    if shape == "roberta":  # two positions more, since its first is the padding's next
        return RobertaConfig(**sizes | {"pad_token_id": 1, "max_position_embeddings": 98})
    if shape == "modernbert":
        ends = {"cls_token_id": CLS, "sep_token_id": SEP, "bos_token_id": CLS, "eos_token_id": SEP}
        return ModernBertConfig(**sizes | ends | {"local_attention": 16})
    sizes = {k: v for k, v in _SIZES.items() if k not in ("vocab_size", "pad_token_id")}
    del sizes["max_position_embeddings"]
    return ViTConfig(**sizes | _IMAGE | changes)


def model(shape: str, is_embedder: bool = False, **changes: Any) -> nn.Module:
    """Return a random base in float32 whose weights are large enough to tell inputs apart."""
    torch.manual_seed(0)
    kind: Any = AutoModel if is_embedder else AutoModelForSequenceClassification
    if shape == "vit":
        kind = AutoModelForImageClassification
    made = kind.from_config(config(shape, **changes))
    torch.manual_seed(0)  # a body has the same weights whatever its head
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
            elif name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return made.eval()


def base(shape: str, of: nn.Module | None = None) -> Base:
    """Return the classifier of a shape as a server has it before anything is injected."""
    of = of or (model(shape) if shape in (*CLASSIFIERS, "vit") else other(shape))
    if shape not in ("vit", "swinv2"):
        return make_encoder(of, tokenizer(), "tiny", "text classifier")
    images = ViTImageProcessorPil(size={"height": 32, "width": 32})
    return make_encoder(of, images, "tiny", "image classifier")


#: BasisCache with linears over what all inputs of a batch share: tables of relative positions.
SHARING: dict[str, tuple[Any, dict[str, Any]]] = {
    "deberta": (DebertaConfig, {}),
    "deberta-v2": (DebertaV2Config, {}),
    "deberta-v3": (DebertaV2Config, {"share_att_key": True, "norm_rel_ebd": "layer_norm"}),
}
#: BasisCache whose answers change with the padding behind a text.
READING_PADDING: dict[str, tuple[Any, dict[str, Any]]] = {
    "fnet": (FNetConfig, {}),
    "convbert": (ConvBertConfig, {"embedding_size": 48}),
    "phi3": (  # other rotations beyond 40 tokens: padding may be what is beyond
        Phi3Config,
        {
            "original_max_position_embeddings": 40,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0 + 0.1 * i for i in range(6)],
                "long_factor": [2.0 + 0.5 * i for i in range(6)],
                "original_max_position_embeddings": 40,
            },
        },
    ),
}


def other(shape: str, **changes: Any) -> nn.Module:
    """Return a random classifier of one of the shapes above, or a SwinV2."""
    if shape == "swinv2":
        sizes: dict[str, Any] = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2]}
        kind, more = Swinv2Config, sizes | _IMAGE | {"patch_size": 4, "window_size": 4}
    else:
        kind, more = ({"gpt2": (GPT2Config, {})} | SHARING | READING_PADDING)[shape]
        more = {k: v for k, v in _SIZES.items() if k != "attn_implementation"} | more
        if shape in SHARING:
            more |= {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
            more |= {"max_relative_positions": 31, "position_buckets": 13, "num_labels": 3}
    torch.manual_seed(0)
    auto = AutoModelForImageClassification if shape == "swinv2" else None
    made = (auto or AutoModelForSequenceClassification).from_config(kind(**more | changes))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.2 / parameter.shape[-1] ** 0.5)
    return made.eval()


def deberta() -> nn.Module:
    """Return a base with linears over what all texts of a batch share: relative positions."""
    return other("deberta-v2")


def save_cross_encoder(folder: Path, shape: PairForm, **changes: Any) -> Path:
    """Write a classifier of pairs with one label, and return its folder."""
    model(shape, **{"num_labels": 1} | changes).save_pretrained(folder)
    tokenizer(pairs=shape).save_pretrained(folder)
    return folder


def save(folder: Path, shape: str, is_embedder: bool = False, **changes: Any) -> Path:
    """Write a base as Hugging Face has it, and return its folder."""
    model(shape, is_embedder, **changes).save_pretrained(folder)
    if shape == "vit":
        size = {"height": 32, "width": 32}
        ViTImageProcessorPil(size=size).save_pretrained(folder)
    else:
        tokenizer().save_pretrained(folder)
    return folder


def reference(folder: Path, shape: str, is_embedder: bool = False, **changes: Any) -> nn.Module:
    """Return the base in `folder` as any user of transformers loads it."""
    kind: Any = AutoModel if is_embedder else AutoModelForSequenceClassification
    if shape == "vit":
        kind = AutoModelForImageClassification
    torch.manual_seed(0)
    return kind.from_pretrained(folder, **changes).eval()


def configs(shape: str, task: str | None, heads: list[str] | None) -> list[PeftConfig]:
    """Return PEFT configs of several methods for one shape."""
    common = {"target_modules": TARGETS[shape], "task_type": task, "modules_to_save": heads}
    return [
        LoraConfig(r=3, lora_alpha=5, **common),
        FourierFTConfig(n_frequency=60, scaling=60.0, **common),
        WaveFTConfig(n_frequency=50, scaling=8.0, **common),
        LoraConfig(r=2, use_dora=True, **common),
    ]


@dataclass(frozen=True)
class Made:
    """An adapter in PEFT's directory, and PEFT's model with it."""

    name: str
    files: dict[str, bytes]
    model: PeftModel

    @torch.inference_mode()
    def logits(self, **inputs: Tensor) -> Tensor:
        return self.model(**inputs).logits


def make(base: nn.Module, given: PeftConfig, folder: Path, seed: int) -> Made:
    """Return an adapter with random values, saved by PEFT; `base` is changed in place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own use of transformers
        peft = get_peft_model(base, given)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if parameter.requires_grad:
                size = 1.0 if "spectrum" in name or "wave" in name else 0.3
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.save_pretrained(folder)
    names = ("adapter_model.safetensors", "adapter_config.json")
    return Made(folder.name, {n: (folder / n).read_bytes() for n in names}, peft.eval())


def inputs_of(text: str) -> dict[str, Tensor]:
    """Return one text as transformers' models read it."""
    return dict(tokenizer()(text, return_tensors="pt"))


def picture(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Return a colourful image."""
    values = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values)


def metadata(labels: Sequence[str]) -> str:
    """Return an upload's metadata that names labels."""
    return json.dumps({"labels": list(labels)})
