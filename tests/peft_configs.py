"""What PEFT can be asked for, as one list: configs of the served methods on tiny decoders.

Each entry says whether its adapter is to be served or which name it is refused by. The list covers
what PEFT's own tests of custom models, decoders and configs go through.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peft import (
    AdaLoraConfig,
    C3AConfig,
    EvaConfig,
    FourierFTConfig,
    FrodConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    ShiraConfig,
    TinyLoraConfig,
    VBLoRAConfig,
    VeraConfig,
    WaveFTConfig,
)
from peft.tuners.lora import (
    BdLoraConfig,
    KasaConfig,
    LoraRuntimeConfig,
    MontecloraConfig,
    VeloraConfig,
)

#: Where an entry adapts if it does not say so.
USUAL = {
    "llama": ["q_proj", "v_proj"],
    "tied": ["q_proj", "v_proj"],
    "mixtral": ["q_proj", "v_proj"],
    "gpt2": ["c_attn"],
    "opt": ["q_proj", "v_proj"],
    "gemma3": ["q_proj", "v_proj"],
    "gpt_oss": ["q_proj", "v_proj"],
}


@dataclass(frozen=True)
class Entry:
    """One adapter.

    Args:
        base: which tiny base.
        kind: PEFT's config class.
        fields: of the config.
        refused: what the refusal names; None: it is served and equals PEFT.
        edit: what is changed in adapter_config.json after PEFT has saved it.
        save: options of `save_pretrained`.
        how: another way to save: `second` adapter, `converted` from its start, `bfloat16`; or
            `reloaded`, where PEFT itself reads its file as another adapter than it wrote.
    """

    base: str
    kind: type[PeftConfig]
    fields: Mapping[str, Any]
    refused: str | None = None
    edit: Mapping[str, Any] = field(default_factory=dict)
    save: Mapping[str, Any] = field(default_factory=dict)
    how: str = ""

    def config(self) -> PeftConfig:
        """Return a fresh config; PEFT writes into those it is given."""
        given = {"target_modules": USUAL[self.base], "task_type": "CAUSAL_LM"} | self.fields
        return self.kind(**given)


def _lora(base: str = "llama", refused: str | None = None, **fields: Any) -> Entry:
    return Entry(base, LoraConfig, {"r": 4} | fields, refused)


def _edited(refused: str | None, **edit: Any) -> Entry:
    return Entry("llama", LoraConfig, {"r": 4}, refused, edit=edit)


def _saved(base: str = "llama", how: str = "", refused: str | None = None, **more: Any) -> Entry:
    save = more.pop("save", {})
    return Entry(base, LoraConfig, {"r": 4} | more, refused, save=save, how=how)


def _of(kind: type[PeftConfig], **common: Any) -> Callable[..., Entry]:
    def entry(base: str = "llama", refused: str | None = None, **fields: Any) -> Entry:
        return Entry(base, kind, common | fields, refused)

    return entry


_fourier = _of(FourierFTConfig, n_frequency=50)
_wave = _of(WaveFTConfig, n_frequency=50)
_vera = _of(VeraConfig, r=6)
_c3a = _of(C3AConfig, block_size=4)
_shira = _of(ShiraConfig, r=2)
_frod = _of(FrodConfig, sparse_rate=0.02)
_tiny = _of(TinyLoraConfig, u=5)

LORA: dict[str, Entry] = {
    "plain": _lora(),
    "rank 1": _lora(r=1),
    "rank above the width": _lora(r=40, target_modules=["k_proj"]),
    "alpha": _lora(lora_alpha=3),
    "alpha below zero": _lora(lora_alpha=-3),
    "alpha a fraction": _lora(lora_alpha=2.5),
    "rslora": _lora(use_rslora=True, lora_alpha=16),
    "dropout": _lora(lora_dropout=0.4),
    "init gaussian": _lora(init_lora_weights="gaussian"),
    "init random": _lora(init_lora_weights=False),
    "init orthogonal": _lora(init_lora_weights="orthogonal"),
    "init mica": _lora(init_lora_weights="mica"),
    "init eva": _lora(init_lora_weights="eva", eva_config=EvaConfig()),
    "init pissa": _lora(init_lora_weights="pissa", refused="init_lora_weights"),
    "init pissa of few steps": _lora(
        init_lora_weights="pissa_niter_3", refused="init_lora_weights"
    ),
    "init olora": _lora(init_lora_weights="olora", refused="init_lora_weights"),
    "init corda": _edited("init_lora_weights", init_lora_weights="corda"),
    "init loftq": _edited("init_lora_weights", init_lora_weights="loftq"),
    "init lora_ga": _edited("init_lora_weights", init_lora_weights="lora_ga"),
    "init unknown": _edited("init_lora_weights", init_lora_weights="nonsense"),
    "loftq_config without its init": _edited(None, loftq_config={"loftq_bits": 4}),
    "fan_in_fan_out on linears": _lora(fan_in_fan_out=True),
    "runtime config": _lora(runtime_config=LoraRuntimeConfig()),
    "revision": _lora(revision="main"),
    "bias all": _lora(bias="all", base="opt", refused="bias"),
    "bias lora_only": _lora(bias="lora_only", base="opt", refused="bias"),
    "bias of B": _lora(lora_bias=True, base="opt", refused="lora_bias"),
    "every linear": _lora(target_modules="all-linear"),
    "default targets": _lora(target_modules=None),
    "by path": _lora(target_modules=["model.layers.1.self_attn.o_proj"]),
    "by two steps": _lora(target_modules=["self_attn.q_proj", "mlp.down_proj"]),
    "by pattern": _lora(target_modules=r".*\.layers\.1\..*(q_proj|up_proj)"),
    "by pattern that looks ahead": _lora(target_modules=r"(?!.*layers\.0).*\.(k|v)_proj"),
    "many names": _lora(
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    ),
    "one layer": _lora(layers_to_transform=1),
    "listed layers": _lora(layers_to_transform=[0, 1]),
    "no layers listed": _lora(layers_to_transform=[]),
    "layers by pattern": _lora(layers_to_transform=[0], layers_pattern="layers"),
    "layers by patterns": _lora(layers_to_transform=[0], layers_pattern=["h", "layers"]),
    "layers and a path": _lora(
        target_modules=["model.layers.0.self_attn.q_proj", "v_proj"], layers_to_transform=[1]
    ),
    "exclude names": _lora(exclude_modules=["layers.0.self_attn.q_proj"]),
    "exclude by pattern": _lora(exclude_modules=r".*layers\.1\..*"),
    "exclude from every linear": _lora(target_modules="all-linear", exclude_modules=["up_proj"]),
    "exclude from a pattern": _lora(target_modules=r".*_proj", exclude_modules=["q_proj"]),
    "rank pattern": _lora(rank_pattern={"q_proj": 2}),
    "rank pattern by path": _lora(rank_pattern={"model.layers.1.self_attn.v_proj": 6}),
    "rank pattern anchored": _lora(rank_pattern={r"^model\.layers\.0\..*": 3, "q_proj": 5}),
    "alpha pattern": _lora(alpha_pattern={r"layers\.0\..*": 9, "v_proj": 1}),
    "both patterns": _lora(rank_pattern={"q_proj": 8}, alpha_pattern={"q_proj": 5}),
    "both patterns, rslora": _lora(
        rank_pattern={"q_proj": 8}, alpha_pattern={r".*\.1\..*": 5}, use_rslora=True
    ),
    "dora": _lora(use_dora=True),
    "dora on every linear": _lora(use_dora=True, target_modules="all-linear"),
    "dora, rslora, patterns": _lora(
        use_dora=True, use_rslora=True, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 5}
    ),
    "dora with dropout": _lora(use_dora=True, lora_dropout=0.2),
    "dora with bias": _lora("opt", use_dora=True, bias="lora_only", refused="bias"),
    "save a norm": _lora(modules_to_save=["norm"], refused="modules_to_save"),
    "save the head": _lora(modules_to_save=["lm_head"]),
    "save the embedding": _lora(modules_to_save=["embed_tokens"]),
    "save both": _lora(modules_to_save=["lm_head", "embed_tokens"]),
    "save both, tied": _lora("tied", modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    "head": _lora(target_modules=["q_proj", "lm_head"]),
    "head alone": _lora(target_modules=["lm_head"], r=2, lora_alpha=5, use_rslora=True),
    "head by pattern": _lora(target_modules=r".*(v_proj|lm_head)"),
    "head with dora": _lora(target_modules=["v_proj", "lm_head"], use_dora=True),
    "head of a tied base": _lora("tied", target_modules=["q_proj", "lm_head"]),
    "head of a tied base, tying": _lora(
        "tied", target_modules=["lm_head", "q_proj"], ensure_weight_tying=True
    ),
    "tying without embeddings": _lora("tied", ensure_weight_tying=True),
    "head of a mixture": _lora("mixtral", target_modules=["lm_head", "o_proj"]),
    "embedding": _lora(target_modules=["q_proj", "embed_tokens"]),
    "embedding of a tied base": _lora("tied", target_modules=["q_proj", "embed_tokens"]),
    "embedding and tied head": _lora(
        "tied", target_modules=["q_proj", "embed_tokens"], ensure_weight_tying=True
    ),
    "trained tokens": _lora(trainable_token_indices=[1, 5]),
    "trained tokens by name": _lora(trainable_token_indices={"embed_tokens": [2, 7]}),
    "embedding alone": _lora(target_modules=["embed_tokens"], use_rslora=True, lora_alpha=3),
    "embedding by patterns": _lora(
        target_modules=r".*(embed_tokens|v_proj)",
        rank_pattern={"embed_tokens": 7},
        alpha_pattern={"embed_tokens": 3},
    ),
    "embedding with dora": _lora(
        target_modules=["q_proj", "embed_tokens"], use_dora=True, refused="embed_tokens"
    ),
    "scaled embedding": _lora("gemma3", target_modules=["q_proj", "embed_tokens"]),
    "scaled embedding, saved": _lora("gemma3", modules_to_save=["embed_tokens"]),
    "scaled embedding, trained tokens": _lora("gemma3", trainable_token_indices=[0, 9, 130]),
    "opt embedding": _lora("opt", target_modules=["embed_tokens", "fc1"]),
    "save both with dora": _lora(use_dora=True, modules_to_save=["lm_head", "embed_tokens"]),
    "save the head of a tied base": _lora("tied", modules_to_save=["lm_head"]),
    "save the embedding of a tied base": _lora("tied", modules_to_save=["embed_tokens"]),
    "save a linear": _lora(modules_to_save=["o_proj"], refused="modules_to_save"),
    "save a block": _lora(modules_to_save=["mlp"], refused="modules_to_save"),
    "trained tokens and a saved head": _lora(
        trainable_token_indices=[5, 1], modules_to_save=["lm_head"]
    ),
    "trained tokens of the head": _lora(trainable_token_indices={"lm_head": [4, 130]}),
    "trained tokens of both": _lora(
        trainable_token_indices={"embed_tokens": [2, 7], "lm_head": [4]}
    ),
    "trained tokens of both of a tied base": _lora(
        "tied",
        trainable_token_indices={"embed_tokens": [2, 7], "lm_head": [4]},
        refused="trainable_token_indices",
    ),
    "an adapted head that is saved, too": _lora(
        target_modules=["q_proj", "lm_head"],
        modules_to_save=["lm_head"],
        refused="modules_to_save",
    ),
    "a head of a tied base, and tokens": _lora(
        "tied",
        target_modules=["q_proj", "lm_head"],
        trainable_token_indices=[2],
        refused="trainable_token_indices",
    ),
    "trained tokens of positions": _lora(
        "gpt2", trainable_token_indices={"wpe": [1]}, refused="trainable_token_indices"
    ),
    "trained tokens, tied": _lora("tied", trainable_token_indices=[3]),
    "experts": _lora(
        "mixtral", target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    ),
    "one stack of experts": _lora("mixtral", target_parameters=["experts.gate_up_proj"], r=2),
    "the other stack": _lora("mixtral", target_parameters=["down_proj"], use_rslora=True),
    "experts alone": _lora(
        "mixtral", target_modules=[], target_parameters=["mlp.experts.down_proj"]
    ),
    "experts of one layer": _lora(
        "mixtral", target_parameters=["model.layers.1.mlp.experts.gate_up_proj"]
    ),
    "experts by patterns": _lora(
        "mixtral",
        target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        rank_pattern={"experts.down_proj": 3},
        alpha_pattern={r"layers\.0\..*gate_up_proj": 5},
    ),
    "transposed experts": _lora(
        "gpt_oss", target_parameters=["experts.gate_up_proj", "experts.down_proj"]
    ),
    "biases of experts": _lora(
        "gpt_oss", target_parameters=["experts.down_proj_bias"], refused="target_parameters"
    ),
    "experts, embedding, head": _lora(
        "mixtral",
        target_parameters=["mlp.experts.down_proj"],
        target_modules=["q_proj", "embed_tokens", "lm_head"],
    ),
    "experts and a saved head": _lora(
        "mixtral", target_parameters=["mlp.experts.down_proj"], modules_to_save=["lm_head"]
    ),
    "a router's weight": _lora("mixtral", target_parameters=["mlp.gate.weight"]),
    "all of a mixture": _lora("mixtral", target_modules="all-linear"),
    "all of gpt-oss": _lora("gpt_oss", target_modules="all-linear"),
    "attention of a mixture": _lora("mixtral"),
    "every linear of a mixture": _lora("mixtral", target_modules=r".*\.(q|k|v|o)_proj"),
    "a linear's weight as a parameter": _lora(
        target_modules=[], target_parameters=["q_proj.weight"], refused="target_parameters"
    ),
    "replicated layers": _lora(layer_replication=[[0, 2], [1, 2]], refused="layer_replication"),
    "activated": _lora(alora_invocation_tokens=[3, 4], refused="alora_invocation_tokens"),
    "block diagonal": _lora(
        use_bdlora=BdLoraConfig(target_modules_bd_a=["q_proj", "v_proj"], nblocks=2),
        refused="use_bdlora",
    ),
    "kasa": _lora(kasa_config=KasaConfig(), refused="kasa_config"),
    "velora": _lora(velora_config=VeloraConfig(num_groups=4), refused="velora_config"),
    "monteclora": _lora(monteclora_config=MontecloraConfig(), refused="monteclora_config"),
    "megatron": _edited("megatron_config", megatron_config={"hidden_size": 8}),
    "qalora": _edited("use_qalora", use_qalora=True),
    "arrow": _edited("arrow_config", arrow_config={"top_k": 2}),
    "another task": _edited("task_type", task_type="SEQ_CLS"),
    "no task": _lora(task_type=None),
    "for features": _lora(task_type="FEATURE_EXTRACTION"),
    "gpt2": _lora("gpt2"),
    "gpt2 told of its layout": _lora("gpt2", fan_in_fan_out=True),
    "gpt2 both projections": _lora("gpt2", target_modules=["c_attn", "c_proj", "c_fc"]),
    "gpt2 one of them": _lora("gpt2", target_modules=["mlp.c_proj"]),
    "gpt2 every linear": _lora("gpt2", target_modules="all-linear"),
    "gpt2 layers": _lora("gpt2", layers_to_transform=[1], layers_pattern="h"),
    "gpt2 dora": _lora("gpt2", use_dora=True, target_modules=["c_attn", "c_fc"]),
    "gpt2 rslora": _lora("gpt2", use_rslora=True, rank_pattern={"c_attn": 3}),
    "gpt2 pissa": _lora("gpt2", init_lora_weights="pissa", refused="init_lora_weights"),
    "gpt2 embedding": _lora("gpt2", target_modules=["wte", "c_attn"]),
    "gpt2 head": _lora("gpt2", target_modules=["lm_head", "c_attn"]),
    "opt": _lora("opt"),
    "opt feed-forward": _lora("opt", target_modules=["fc1", "fc2"]),
    "opt every linear": _lora("opt", target_modules="all-linear"),
    "opt dora": _lora("opt", use_dora=True, target_modules=["out_proj", "fc1"]),
    "opt head": _lora("opt", target_modules=["lm_head", "fc1"]),
    "opt positions": _lora("opt", target_modules=["embed_positions"], refused="embed_positions"),
}

WAYS_TO_SAVE: dict[str, Entry] = {
    "as the second adapter": _saved(how="second"),
    "dora as the second adapter": _saved(how="second", use_dora=True),
    # PEFT sorts patterns when it saves, and takes the first that matches.
    "overlapping patterns": _saved(
        how="reloaded", alpha_pattern={"v_proj": 1, r"layers\.0\..*": 9}
    ),
    "reloaded": _saved(how="reloaded", target_modules="all-linear"),
    "in bfloat16": _saved(how="bfloat16"),
    "with the embeddings": _saved(save={"save_embedding_layers": True}),
    "with the embeddings, tied": _saved("tied", save={"save_embedding_layers": True}),
    "with the head, without its weight": _saved(
        save={"save_embedding_layers": False}, target_modules=["lm_head"]
    ),
    "without the embeddings": _saved(save={"save_embedding_layers": False}),
    "pissa converted": _saved(how="converted", init_lora_weights="pissa"),
    "pissa of few steps converted": _saved(how="converted", init_lora_weights="pissa_niter_2"),
    "olora converted": _saved(how="converted", init_lora_weights="olora"),
    "olora with rslora converted": _saved(
        how="converted", init_lora_weights="olora", use_rslora=True
    ),
    "pissa with patterns converted": _saved(
        how="converted",
        init_lora_weights="pissa",
        rank_pattern={"q_proj": 2},
        alpha_pattern={"v_proj": 5},
    ),
    "gpt2 pissa converted": _saved("gpt2", how="converted", init_lora_weights="pissa"),
}

OTHERS: dict[str, Entry] = {
    "fourierft": _fourier(),
    "fourierft seed and scale": _fourier(random_loc_seed=5, scaling=40.0),
    "fourierft pattern": _fourier(
        n_frequency_pattern={"v_proj": 30, "layers.0.self_attn.q_proj": 9}
    ),
    "fourierft zeros first": _fourier(init_weights=True),
    "fourierft layers": _fourier(layers_to_transform=[1]),
    "fourierft exclude": _fourier(exclude_modules=["layers.0.self_attn.v_proj"]),
    "fourierft every linear": _fourier(target_modules="all-linear"),
    "fourierft by pattern": _fourier(target_modules=r".*\.(o_proj|up_proj)"),
    "fourierft fan_in_fan_out": _fourier(fan_in_fan_out=True),
    "fourierft bias": _fourier("opt", bias="fourier_only", refused="bias"),
    "fourierft saves the head": _fourier(modules_to_save=["lm_head"]),
    "fourierft head": _fourier(target_modules=["lm_head"], refused="lm_head"),
    "fourierft gpt2": _fourier("gpt2"),
    "fourierft gpt2 every linear": _fourier("gpt2", target_modules="all-linear"),
    "fourierft opt": _fourier("opt", target_modules=["k_proj", "fc2"]),
    "waveft": _wave(),
    "waveft seed and scale": _wave(random_loc_seed=5, scaling=4.0),
    "waveft pattern": _wave(n_frequency_pattern={"v_proj": 30}),
    "waveft db2": _wave(wavelet_family="db2"),
    "waveft sym3": _wave(wavelet_family="sym3"),
    "waveft coif1": _wave(wavelet_family="coif1"),
    "waveft coif4": _wave(wavelet_family="coif4", refused="wavelet_family"),
    "waveft without transform": _wave(use_idwt=False),
    "waveft proportional": _wave(proportional_parameters=True),
    "waveft random first": _wave(init_weights=False),
    "waveft layers": _wave(layers_to_transform=0),
    "waveft every linear": _wave(target_modules="all-linear"),
    "waveft bias": _wave("opt", bias="all", refused="bias"),
    "waveft saves the embedding": _wave(modules_to_save=["embed_tokens"]),
    "waveft gpt2": _wave("gpt2"),
    "waveft opt": _wave("opt", target_modules=["fc1"]),
    "vera": _vera(),
    "vera key": _vera(projection_prng_key=17),
    "vera without matrices": _vera(save_projection=False),
    "vera d_initial": _vera(d_initial=0.7),
    "vera dropout": _vera(vera_dropout=0.3),
    "vera layers": _vera(layers_to_transform=[1]),
    "vera every linear": _vera(target_modules="all-linear"),
    "vera bias": _vera("opt", bias="vera_only", refused="bias"),
    "vera saves the head": _vera(modules_to_save=["lm_head"]),
    "vera head": _vera(target_modules=["lm_head", "q_proj"], refused="lm_head"),
    "vera gpt2": _vera("gpt2"),
    "vera opt": _vera("opt", target_modules=["fc1", "q_proj"]),
    "c3a": _c3a(),
    "c3a blocks": _c3a(block_size=16),
    "c3a block pattern": _c3a(block_size_pattern={"v_proj": 8}),
    "c3a gaussian": _c3a(init_weights="gaussian"),
    "c3a kaiming": _c3a(init_weights="kaiming_uniform"),
    "c3a zeros first": _c3a(init_weights=True),
    "c3a layers": _c3a(layers_to_transform=[0]),
    "c3a every linear": _c3a(target_modules="all-linear"),
    "c3a bias": _c3a("opt", bias="c3a_only", refused="bias"),
    "c3a opt": _c3a("opt", target_modules=["fc2"]),
    "shira": _shira(),
    "shira seeded": _shira(random_seed=4),
    "shira random first": _shira(init_weights=False),
    "shira all positions": _shira(r=24, target_modules=["k_proj"]),
    "shira saves the head": _shira(modules_to_save=["lm_head"]),
    "shira opt": _shira("opt", target_modules=["fc1"]),
    "frod": _frod(),
    "frod saves both": _frod(modules_to_save=["lm_head", "embed_tokens"]),
    "frod key": _frod(projection_prng_key=3, sparse_rate=0.05),
    "frod regularised": _frod(regularization_alpha=0.01),
    "frod no sparse part": _frod(sparse_rate=0.0, refused="frod_s_indices"),
    "frod layers": _frod(layers_to_transform=[1]),
    "frod without its basis": _frod(save_projection=False, refused="save_projection"),
    "frod opt": _frod("opt"),
    "frod gpt2": _frod("gpt2"),
    "frod bias": _frod("opt", bias="frod_only", refused="bias"),
    "tinylora": _tiny(),
    "tinylora rank": _tiny(r=3, u=7),
    "tinylora one vector": _tiny(weight_tying=1.0),
    "tinylora some tied": _tiny(weight_tying=0.5),
    "tinylora seed": _tiny(projection_seed=9),
    "tinylora without projections": _tiny(save_projection=False),
    "tinylora uniform first": _tiny(init_weights="uniform", init_v_bound=0.1),
    "tinylora dropout": _tiny(tinylora_dropout=0.2),
    "tinylora every linear": _tiny(target_modules="all-linear"),
    "tinylora layers": _tiny(layers_to_transform=[0]),
    "tinylora saves the head": _tiny(modules_to_save=["lm_head"]),
    "tinylora gpt2": _tiny("gpt2"),
    "tinylora embedding": _tiny(target_modules=["embed_tokens", "q_proj"], refused="embed_tokens"),
    "tinylora bias": _tiny("opt", bias="tinylora_only", refused="bias"),
}

NOT_OURS: dict[str, Entry] = {
    kind.__name__: Entry("llama", kind, fields, "peft_type")
    for kind, fields in {
        AdaLoraConfig: {"total_step": 10},
        IA3Config: {"feedforward_modules": []},
        LoHaConfig: {"r": 2},
        LoKrConfig: {"r": 2},
        OFTConfig: {"oft_block_size": 4},
        VBLoRAConfig: {"vector_length": 4, "num_vectors": 8, "topk": 2, "r": 2},
    }.items()
}

ENTRIES: dict[str, Entry] = {
    **{f"lora: {name}": entry for name, entry in LORA.items()},
    **{f"saved: {name}": entry for name, entry in WAYS_TO_SAVE.items()},
    **OTHERS,
    **NOT_OURS,
}
