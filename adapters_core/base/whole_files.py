"""Whether a base's files were the base that its config describes: nothing missing, nothing ignored.

transformers gives a weight that the files lack a random value, another one at every start, and
drops what it has no place for; both are warnings there. A base like that is not what was asked
for, so it is neither served nor trained on.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

_SHOWN = 3
#: Tensors of earlier versions that a model computes for itself today, and counters of tools.
_COMPUTED = re.compile(
    r"(^|\.)(inv_freq|position_ids|token_type_ids|num_batches_tracked|total_ops|total_params"
    r"|_extra_state|(attn|attention)\.(bias|masked_bias))$"
)
_OTHER_CONFIG = (
    "Save the model once more with save_pretrained, or take the config.json that belongs to these "
    "files"
)
#: What a config may call the most tokens of a text, beside transformers' own name for it.
_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "n_ctx",
    "seq_length",
)
#: Tokenizers that know no limit say a number like 1e30.
_NO_LIMIT = 1 << 30


def load_whole(kind: Any, source: str, **options: Any) -> Any:
    """Return the causal LM in `source`, whose files are exactly its weights.

    Weights that are tied to others, values that the model computes, and whole modules that a causal
    LM has not (a classifier's head, a tower for images) may be missing or left over.

    Args:
        kind: transformers' class to load it with.
        source: a folder or a hub id.
        options: of `from_pretrained`.

    Raises:
        ValueError: the message names the keys and says what to do.
        Exception: whatever transformers raises.
    """
    try:
        model, info = kind.from_pretrained(source, output_loading_info=True, **options)
    except RuntimeError as error:
        if "ignore_mismatched_sizes" in str(error):
            raise ValueError(_mismatches(kind, source, options)) from error
        raise
    _refuse_unsound(model, info)
    return model


def _mismatches(kind: Any, source: str, options: Mapping[str, Any]) -> str:
    """Return which weights have other shapes; what is loaded for that is thrown away."""
    _, info = kind.from_pretrained(
        source, output_loading_info=True, **{**options, "ignore_mismatched_sizes": True}
    )
    found = sorted(info["mismatched_keys"])
    shown = [f"{key} is {list(file)}, not {list(wanted)}" for key, file, wanted in found]
    return f"its files do not fit its config.json: {_some(shown)}. {_OTHER_CONFIG}"


def _refuse_unsound(model: nn.Module, info: Mapping[str, Any]) -> None:
    missing = _lost(model, info["missing_keys"])
    unexpected = _ignored(model, info["unexpected_keys"])
    if not missing and not unexpected:
        return
    faults = []
    if missing:
        faults.append(f"they have no values for {_some(missing)}")
    if unexpected:
        faults.append(f"they have values that {type(model).__name__} ignores: {_some(unexpected)}")
    way_out = _way_out(missing, info["unexpected_keys"])
    raise ValueError(f"its files do not fit its config.json: {', and '.join(faults)}. {way_out}")


def _lost(model: nn.Module, keys: Collection[str]) -> list[str]:
    if not keys:
        return []
    numbers = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    numbers |= {name for name, buffer in model.named_buffers() if buffer.is_floating_point()}
    return sorted(key for key in keys if key in numbers and not _COMPUTED.search(key))


def _ignored(model: nn.Module, keys: Collection[str]) -> list[str]:
    """Return the keys that lie within a part of the model."""
    parts = {name for name, _ in model.named_children()}
    return sorted(
        key for key in keys if key.partition(".")[0] in parts and not _COMPUTED.search(key)
    )


def _some(keys: list[str]) -> str:
    more = len(keys) - _SHOWN
    return ", ".join(keys[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _way_out(missing: list[str], unexpected: Iterable[str]) -> str:
    names = set(unexpected)
    for prefix in {name[: -len(missing[0])] for name in names if missing} - {""}:
        if all(prefix + name in names for name in missing):
            return f"All names in them begin with {prefix!r}: save them without it"
    return _OTHER_CONFIG


def max_positions(config: Any, tokenizer: Any = None) -> int:
    """Return the most tokens of a text, as a causal LM's config or else its tokenizer says.

    Raises:
        ValueError: neither says it.
    """
    given = [getattr(config, name, None) for name in _LENGTHS]
    given.append(getattr(tokenizer, "model_max_length", None))
    for length in given:
        if isinstance(length, int | float) and 0 < length < _NO_LIMIT:
            return int(length)
    said = getattr(config, "max_position_embeddings", None)
    raise ValueError(
        f"its config.json has max_position_embeddings = {said}, and its tokenizer no "
        "model_max_length: write the most tokens that a text may have into one of them"
    )


def longest_text(model: nn.Module, tokenizer: Any) -> int:
    """Return how many tokens a text may have, those that the tokenizer adds included.

    Raises:
        ValueError: neither the model nor its tokenizer says it.
    """
    config: Any = model.config
    length = max_positions(config.get_text_config(), tokenizer)
    for path, module in model.named_modules():
        # RoBERTa counts positions from behind the padding's own.
        if path.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            length = module.num_embeddings
            length -= 0 if module.padding_idx is None else module.padding_idx + 1
    return int(min(length, tokenizer.model_max_length))
