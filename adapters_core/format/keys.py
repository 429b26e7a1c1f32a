"""The keys of a coefficient file: whatever their spelling, as PEFT itself would write them.

PEFT writes `base_model.model.<path>.<tensor>` for a layer and `base_model.<name>` for what layers
share. Files saved in other ways have the same keys with additions that mean one thing only: marks
of torch.compile, of data-parallel and checkpointing wrappers, of the adapter's name, the tower of a
multimodal model, names of transformers 4. Here they are read; every other key is refused in words.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from adapters_core.base.renames import renamed
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import TensorSpec
from adapters_core.contract.peft_fields import MERGE
from adapters_core.contract.safetensors_header import Header, TensorEntry
from adapters_core.errors import InvalidAdapter, UnusedTensors

PREFIX = "base_model.model."
SHARED_PREFIX = "base_model."
_SHOWN = 5
#: Steps of a path that wrappers of modules add to it.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PARALLEL = "module."
_ADAPTER_NAME = "default"
_TOWER = "language_model"
_SHORTENED = "lora_magnitude_vector"

#: What a key that matches no layer may be: an expression over it, and words.
_KINDS = (
    (
        r"\.lora_embedding_[AB]",
        "of a LoRA of an embedding that no adapter may change: only the input embedding of a base "
        f"that generates is served; {MERGE}",
    ),
    (
        r"trainable_tokens_",
        "of trained rows that trainable_token_indices in the config does not name, or of an "
        f"embedding that no adapter may change; {MERGE}",
    ),
    (
        r"\.experts\.",
        "of a mixture's experts; updates of their parameters are served where target_parameters "
        f"names them (LoRA), others are not; {MERGE}",
    ),
    (
        r"\.(lm_head|embed_out|output_layer)\.\w+_",
        f"of an output layer that no adapter may change; {MERGE}",
    ),
    (
        r"\.base_layer\.weight$",
        "a weight of the base itself; save the adapter with PEFT's save_pretrained, and with "
        "save_embedding_layers=False",
    ),
    (
        r"^(?!.*\.lora_).*\.(weight|bias)$",
        "a whole parameter of the base (bias, modules_to_save or save_embedding_layers) that an "
        f"adapter cannot replace; save the adapter without it, or {MERGE}",
    ),
)


def key_of(target: str, name: str, spec: TensorSpec) -> str:
    """Return the key under which a file holds a layer's tensor."""
    return PREFIX + f"{target}.{name}" if spec.shared is None else SHARED_PREFIX + spec.shared


def split_key(key: str, base: BaseSpec) -> tuple[str | None, str]:
    """Return the layer's path and the tensor's name in a file's key; no path if none fits."""
    path = key.removeprefix(PREFIX)
    if path == key:
        return None, key
    for cut in (i for i, char in enumerate(path) if char == "."):
        if path[:cut] in base.layers:
            return path[:cut], path[cut + 1 :]
    return None, key


def plainly_spelled(header: Header, base: BaseSpec) -> tuple[Header, dict[str, str]]:
    """Return the header with every key as PEFT writes it, and target -> path in the file.

    The second has those targets alone whose path in the file is another: the adapter's config
    speaks of them by that path.

    Raises:
        InvalidAdapter: two keys are spellings of one tensor.
    """
    tensors: dict[str, TensorEntry] = {}
    spelled: dict[str, str] = {}
    paths: dict[str, str] = {}
    for key, entry in header.tensors.items():
        plain, path = _plain(key, base)
        if plain in tensors:
            message = f"{spelled[plain]} and {key} are two spellings of one tensor; keep one"
            raise InvalidAdapter(message, key)
        tensors[plain], spelled[plain] = entry, key
        target, _ = split_key(plain, base)
        if target is not None and path != target:
            paths[target] = path
    return replace(header, tensors=tensors), paths


def _plain(key: str, base: BaseSpec) -> tuple[str, str]:
    """Return a key as PEFT writes it, and the layer's path as it is spelled there."""
    unwrapped = _without_wrappers(key)
    for candidate, path in _candidates(unwrapped, base):
        target, name = split_key(candidate, base)
        if target is not None:
            return PREFIX + f"{target}.{_without_adapter(name)}", path or target
    if not unwrapped.startswith(PREFIX):  # shared by layers
        shared = _without_adapter(unwrapped.removeprefix(SHARED_PREFIX))
        unwrapped = SHARED_PREFIX + shared if unwrapped.startswith(SHARED_PREFIX) else unwrapped
    return unwrapped, ""


def _without_wrappers(key: str) -> str:
    key = ".".join(step for step in key.split(".") if step not in _WRAPPERS)
    inner = key.removeprefix(_PARALLEL)
    return inner if inner.startswith(SHARED_PREFIX) else key


def _candidates(key: str, base: BaseSpec) -> Iterator[tuple[str, str]]:
    """Yield what a key may be today, and the layer's path that it speaks of if that is another."""
    yield key, ""
    path = key.removeprefix(PREFIX)
    if path == key:
        return
    steps = path.split(".")
    others = [renamed(path, base.renames)]
    if steps.count(_TOWER) == 1:
        others.append(".".join(step for step in steps if step != _TOWER))
    for other in others:
        if other != path:
            yield PREFIX + other, _layer_in(path, other, base)


def _layer_in(path: str, other: str, base: BaseSpec) -> str:
    """Return the part of `path` that names the layer which `other` begins with."""
    target, name = split_key(PREFIX + other, base)
    ending = f".{name}"
    return path.removesuffix(ending) if target is not None and path.endswith(ending) else ""


def _without_adapter(name: str) -> str:
    """Return a tensor's name without the adapter's: `lora_A.default.weight`, `spectrum.default`."""
    first, *steps = name.split(".")
    steps = steps[1:] if steps[:1] == [_ADAPTER_NAME] else steps
    # A module in PEFT's memory, and the one tensor whose name its files shorten.
    return first if first == _SHORTENED else ".".join([first, *steps])


def without_additions(key: str) -> str:
    """Return a key without what wrappers and the adapter's name add, no base being at hand."""
    path, dot, name = _without_wrappers(key).rpartition(f".{_ADAPTER_NAME}")
    return path + name if dot and name in ("", ".weight") else path + dot + name


def refuse_unknown(keys: Sequence[str], base: BaseSpec) -> None:
    """Refuse keys that match no layer, with what one of them is where that can be seen.

    Raises:
        UnusedTensors: there is one.
    """
    if not keys:
        return
    _refuse_left_out(keys, base)
    shown = ", ".join(keys[:_SHOWN]) + (" …" if len(keys) > _SHOWN else "")
    message = (
        f"{len(keys)} tensors match no adaptable layer of base {base.name!r}: {shown}; "
        f"expected names like {PREFIX}{next(iter(base.targets), '')}.<tensor>"
    )
    for pattern, words in _KINDS:
        for key in keys:
            if re.search(pattern, key):
                raise UnusedTensors(f"{message}. {key} is {words}", key)
    raise UnusedTensors(message, keys[0])


def _refuse_left_out(keys: Sequence[str], base: BaseSpec) -> None:
    """Refuse tensors for layers that the base has, but that no adapter may change."""
    layers = [key.removeprefix(PREFIX).rpartition(".")[0] for key in keys]
    lost = {path: None for layer in layers for path in base.left_out if _is_at(layer, path)}
    if lost:
        path, *others = lost
        more = f" (and {len(others)} more layers)" if others else ""
        raise UnusedTensors(
            f"no adapter may change {path}{more} of base {base.name!r}: {base.left_out[path]}. "
            "GET /v1/models/{base} lists such layers; train without them",
            path,
        )


def _is_at(layer: str, path: str) -> bool:
    return layer == path or layer.startswith(path + ".")


def is_named(path: str, name: str) -> bool:
    """Return whether a config's name is that of the module or parameter at `path`, or its end."""
    return path == name or path.endswith(f".{name}")
