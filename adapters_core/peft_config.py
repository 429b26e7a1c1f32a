"""PEFT's adapter_config.json as untrusted input: typed lookups, patterns, target modules.

A field that would change what the adapter computes and that nothing here reads must be off; it is
refused by name otherwise. Field names and matching rules are PEFT 0.21's (peft/tuners/tuners_utils,
peft/utils/other).
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import regex

from adapters_core.errors import InvalidAdapter

MAX_CONFIG_BYTES = 1 << 20
MAX_PATTERN_CHARS = 4096
_MATCH_TIMEOUT_S = 0.05

#: Fields that say nothing about the numbers an adapter computes in inference.
_NEUTRAL = frozenset(
    (
        *("auto_mapping", "base_model_class", "base_model_name_or_path", "convert_pissa_to_lora"),
        *("corda_config", "ensure_weight_tying", "ephemeral_gpu_offload", "eva_config"),
        *("exclude_modules", "fan_in_fan_out", "inference_mode", "init_weights"),
        *("layers_pattern", "layers_to_transform", "library", "loftq_config", "lora_dropout"),
        *("lora_ga_config", "megatron_core", "parent_library", "peft_type", "peft_version"),
        *("progressbar", "qalora_group_size", "revision", "runtime_config", "target_modules"),
        "task_type",
    )
)
#: Fields whose other values change the computation: the one value that is served.
_ONLY: dict[str, tuple[Any, ...]] = {"bias": ("none", None)}


@dataclass(frozen=True)
class Pattern:
    """A config field that maps patterns over module paths to values, and how PEFT matches one."""

    field: str
    rule: str = r"(.*\.)?({key})$"


@dataclass(frozen=True)
class PeftConfig:
    """A parsed config; `raw` holds the JSON object."""

    raw: dict[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> "PeftConfig":
        """Return the config in `data`.

        Raises:
            InvalidAdapter: over 1 MiB, not UTF-8 JSON, not an object, or a key twice.
        """
        if len(data) > MAX_CONFIG_BYTES:
            raise InvalidAdapter(f"the config has {len(data)} bytes; at most {MAX_CONFIG_BYTES}")
        try:
            raw = json.loads(data, object_pairs_hook=unique_object)
        except (ValueError, RecursionError) as error:
            raise InvalidAdapter(f"the config is not JSON: {error}", "config") from error
        if not isinstance(raw, dict):
            raise InvalidAdapter("the config is not a JSON object", "config")
        return cls(raw)

    @property
    def peft_type(self) -> str:
        """Return the method's PEFT type.

        Raises:
            InvalidAdapter: the field is missing or no string.
        """
        value = self.raw.get("peft_type")
        if not isinstance(value, str):
            raise InvalidAdapter("peft_type is missing from the config", "peft_type")
        return value

    def canonical(self) -> bytes:
        """Return the bytes that enter the digest: the same for any spacing and order of keys."""
        return json.dumps(self.raw, sort_keys=True, separators=(",", ":")).encode()

    def refuse_unread(self, read: Iterable[str]) -> None:
        """Refuse a field that is set, that no one reads and that may change the computation.

        Raises:
            InvalidAdapter: names the field and its value.
        """
        for name, value in self.raw.items():
            if name in _ONLY and value not in _ONLY[name]:
                raise InvalidAdapter(f"{name} = {value!r} is not supported", name)
            if name in _NEUTRAL or name in _ONLY or name in read or not value:
                continue
            raise InvalidAdapter(f"{name} = {_short(value)} is not supported for this method", name)

    def integer(
        self, name: str, default: int, pattern: Pattern | None = None, target: str = ""
    ) -> int:
        """Return an integer field, or what the `pattern` field says of `target`.

        Raises:
            InvalidAdapter: the value is no integer.
        """
        value = self._lookup(name, default, pattern, target)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidAdapter(f"{name} = {_short(value)} is not an integer", name)
        return value

    def number(
        self, name: str, default: float, pattern: Pattern | None = None, target: str = ""
    ) -> float:
        """Return a finite number; as `integer` otherwise.

        Raises:
            InvalidAdapter: the value is no finite number.
        """
        value = self._lookup(name, default, pattern, target)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidAdapter(f"{name} = {_short(value)} is not a number", name)
        if abs(value) > 1e30 or not math.isfinite(value):
            raise InvalidAdapter(f"{name} = {_short(value)} is out of range", name)
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a boolean field.

        Raises:
            InvalidAdapter: the value is neither true nor false.
        """
        value = self.raw.get(name, default)
        if not isinstance(value, bool):
            raise InvalidAdapter(f"{name} = {_short(value)} is not true or false", name)
        return value

    def _lookup(self, name: str, default: Any, pattern: Pattern | None, target: str) -> Any:
        value = self.raw.get(name)
        value = default if value is None else value
        if pattern is None:
            return value
        table = self.raw.get(pattern.field) or {}
        if not isinstance(table, dict):
            raise InvalidAdapter(f"{pattern.field} is not an object", pattern.field)
        for key, specific in table.items():
            rule = pattern.rule.replace("{key}", key)
            if _search(rule, target, pattern.field, regex.match):
                return specific
        return value

    def selects(self, target: str) -> bool:
        """Return whether the config's target rules take the module path `target`.

        Raises:
            InvalidAdapter: a rule is malformed or takes too long.
        """
        if self._listed("exclude_modules", target):
            return False
        if not self._listed("target_modules", target):
            return False
        layers = self.raw.get("layers_to_transform")
        if layers is None or layers == [] or isinstance(self.raw.get("target_modules"), str):
            return True
        return self._layer_of(target) in (layers if isinstance(layers, list) else [layers])

    def _listed(self, name: str, target: str) -> bool:
        rule = self.raw.get(name)
        if rule is None:
            return False
        if isinstance(rule, str):
            return _search(rule, target, name, regex.fullmatch) is not None
        if not isinstance(rule, list) or not all(isinstance(item, str) for item in rule):
            raise InvalidAdapter(f"{name} is neither a pattern nor a list of names", name)
        return any(target == item or target.endswith(f".{item}") for item in rule)

    def _layer_of(self, target: str) -> int | None:
        patterns = self.raw.get("layers_pattern") or [r"[^.]*"]
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            rule = rf"(?:^|.*?\.){pattern}\.(\d+)\."
            found = _search(rule, target, "layers_pattern", regex.match)
            if found:
                return int(found.group(1))
        return None


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dict; for json.loads.

    Raises:
        ValueError: a key stands twice, so that two readers could see two different files.
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return result


def _search(rule: str, target: str, name: str, how: Callable[..., Any]) -> Any:
    """Match an uploader's pattern: bounded in length and in time (a pattern may be exponential)."""
    if len(rule) > MAX_PATTERN_CHARS:
        raise InvalidAdapter(f"a pattern of {name} has {len(rule)} characters", name)
    try:
        return how(rule, target, timeout=_MATCH_TIMEOUT_S)
    except TimeoutError:
        raise InvalidAdapter(f"a pattern of {name} takes too long: {_short(rule)}", name) from None
    except regex.error as error:
        raise InvalidAdapter(f"a pattern of {name} is malformed: {error}", name) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
