"""Which layers of a base an adapter's config replaces, and how.

PEFT's `modules_to_save` names modules that are saved whole, by the end of their path;
`trainable_token_indices` names tokens, of the input embedding or of embeddings by name. Served are
those of a causal LM's input embedding and output layer: everything else is refused by name.
"""

import json
from collections.abc import Mapping
from typing import Any

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Method
from adapters_core.contract.peft_config import PeftConfig, is_all_linear
from adapters_core.contract.peft_fields import MERGE
from adapters_core.errors import InvalidAdapter
from adapters_core.format.keys import PREFIX, SHARED_PREFIX, is_named
from adapters_core.format.token_rows import ROWS, TokenRows
from adapters_core.format.whole_weight import WholeWeight

_SAVED, _TOKENS, _TYING = "modules_to_save", "trainable_token_indices", "ensure_weight_tying"
#: Fields that are read here, for bases whose head an adapter does not replace.
FIELDS = (_SAVED, _TOKENS)


def replaced_by(config: PeftConfig, base: BaseSpec) -> dict[str, Method]:
    """Return path -> method of every layer that the config replaces, as a whole or in part.

    Raises:
        InvalidAdapter: a field is malformed, or names what is not served; `param` is the field.
    """
    if base.head is not None:
        return {}
    whole = _whole_weights(config, base)
    rows = _token_rows(config, base)
    for path in whole.keys() & rows.keys():
        message = f"{_TOKENS} and {_SAVED} both change {path}; train it in one of the two ways"
        raise InvalidAdapter(message, _TOKENS)
    _refuse_adapted(config, {**dict.fromkeys(whole, _SAVED), **dict.fromkeys(rows, _TOKENS)})
    return {**whole, **rows}


def _refuse_adapted(config: PeftConfig, fields: Mapping[str, str]) -> None:
    """Refuse a layer that the method adapts and another field replaces; path -> the field."""
    if not config.raw.get("target_modules") or is_all_linear(config.raw["target_modules"]):
        return
    for path, field in fields.items():
        if config.selects(path):
            raise InvalidAdapter(
                f"target_modules and {field} both change {path} (the layers of a tied weight are "
                f"one); train it in one of the two ways, or {MERGE}",
                field,
            )


def _whole_weights(config: PeftConfig, base: BaseSpec) -> dict[str, Method]:
    listed = config.raw.get(_SAVED) or []
    if not isinstance(listed, list) or not all(isinstance(name, str) and name for name in listed):
        raise InvalidAdapter(f"{_SAVED} is not a list of names", _SAVED)
    found: dict[str, Method] = {}
    for name in listed:
        paths = [path for path in _replaceable(base) if is_named(path, name)]
        if not paths:
            raise InvalidAdapter(_no_such(_SAVED, name, base), _SAVED)
        found |= {path: WholeWeight(path in base.lookups) for path in paths}
    if found and base.tied and config.raw.get(_TYING):
        found = {path: WholeWeight(path in base.lookups) for path in _replaceable(base)}
    return found


def _token_rows(config: PeftConfig, base: BaseSpec) -> dict[str, Method]:
    given = config.raw.get(_TOKENS) or {}
    if isinstance(given, list):
        given = dict.fromkeys(base.lookups, given) or {"embed_tokens": given}
    if not isinstance(given, dict):
        raise InvalidAdapter(f"{_TOKENS} is neither a list of tokens nor an object", _TOKENS)
    found: dict[str, Method] = {}
    for name, tokens in given.items():
        paths = [path for path in _replaceable(base) if is_named(path, name)]
        if not paths:
            raise InvalidAdapter(_no_such(_TOKENS, name, base), _TOKENS)
        for path in paths:
            if path in found:
                raise InvalidAdapter(f"{_TOKENS} names {path} more than once", _TOKENS)
            found[path] = TokenRows(_tokens(tokens, path, base), path in base.lookups)
    return found | _tied_rows(found, base)


def _tied_rows(found: Mapping[str, Method], base: BaseSpec) -> dict[str, Method]:
    """Return the output layer's rows where its weight is the input embedding's, as PEFT does."""
    rows = [(path, found[path]) for path in base.lookups if path in found]
    if not base.tied or not rows:
        return {}
    ((path, method),) = rows
    assert isinstance(method, TokenRows)
    if found.keys() & base.outputs.keys():
        raise InvalidAdapter(
            f"{_TOKENS} names {path} and the output layer, which have one weight in base "
            f"{base.name!r}: name {path} alone, which changes both",
            _TOKENS,
        )
    shared = f"{PREFIX}{path}.{ROWS}".removeprefix(SHARED_PREFIX)
    return {output: TokenRows(method.tokens, False, shared) for output in base.outputs}


def _tokens(given: Any, path: str, base: BaseSpec) -> tuple[int, ...]:
    shape = base.layers[path]
    vocabulary = shape.in_ if path in base.lookups else shape.out
    good = isinstance(given, list) and all(type(token) is int for token in given)
    if not good or not given or len(set(given)) != len(given):
        message = f"{_TOKENS} = {_short(given)} is no list of different tokens"
        raise InvalidAdapter(message, _TOKENS)
    outside = [token for token in given if not 0 <= token < vocabulary]
    if outside:
        message = f"{_TOKENS} has token {outside[0]}; base {base.name!r} has 0 to {vocabulary - 1}"
        raise InvalidAdapter(message, _TOKENS)
    return tuple(given)


def _replaceable(base: BaseSpec) -> dict[str, object]:
    return {**base.lookups, **base.outputs}


def _no_such(field: str, name: str, base: BaseSpec) -> str:
    known = ", ".join(_replaceable(base)) or "none"
    return (
        f"{field} names {name[:80]!r}, which an adapter of base {base.name!r} cannot replace "
        f"(it can: {known}); {MERGE}"
    )


def _short(value: Any) -> str:
    return json.dumps(value)[:80]
