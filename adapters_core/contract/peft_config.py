"""PEFT's adapter_config.json as untrusted input: typed lookups, patterns, target modules.

A field that would change what the adapter computes and that nothing here reads must be off; it is
refused by name otherwise (peft_fields.py). Matching rules are PEFT 0.21's
(peft/tuners/tuners_utils, peft/utils/other).
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import regex

from adapters_core.contract.peft_fields import NEUTRAL, READ, REFUSED, VALUES, is_one_of
from adapters_core.errors import InvalidAdapter, TooLarge
from adapters_core.strict_json import UnclearJson, check_values, strict_json

MAX_CONFIG_BYTES = 1 << 20
MAX_PATTERN_CHARS = 4096
ALL_LINEAR = "all-linear"
#: Of the matching thread's own time: for one match, and for all matches of one config together.
_MATCH_TIMEOUT_S = 0.05
_MATCH_BUDGET_S = 2.0


@dataclass(frozen=True)
class Pattern:
    """A config field that maps patterns over module paths to values, and how PEFT matches one."""

    field: str
    rule: str = r"(.*\.)?({key})$"


@dataclass
class _Matcher:
    """Matches an uploader's patterns: bounded in length and in time (one may be exponential)."""

    left_s: float = _MATCH_BUDGET_S
    compiled: dict[str, Any] = field(default_factory=dict)

    def match(self, rule: str, target: str, name: str, full: bool = False) -> Any:
        """Return the match of `rule`, a pattern of the config's field `name`, or None."""
        start = time.thread_time()
        try:
            pattern = self._compile(rule, name)
            how = pattern.fullmatch if full else pattern.match
            return _within(max(1e-3, min(_MATCH_TIMEOUT_S, self.left_s)), how, target)
        except TimeoutError:
            message = f"a pattern of {name} takes too long: {_short(rule)}"
            raise InvalidAdapter(message, name) from None
        finally:
            self.left_s -= time.thread_time() - start

    def _compile(self, rule: str, name: str) -> Any:
        if len(rule) > MAX_PATTERN_CHARS:
            raise InvalidAdapter(f"a pattern of {name} has {len(rule)} characters", name)
        if self.left_s <= 0:
            raise InvalidAdapter(f"the patterns of {name} take too long together", name)
        if rule not in self.compiled:
            try:
                re.compile(rule)  # PEFT's own engine; regex takes more, some of it costly
                self.compiled[rule] = regex.compile(rule)
            except (re.error, regex.error, RecursionError, OverflowError) as error:
                message = f"a pattern of {name} is malformed: {error}"
                raise InvalidAdapter(message, name) from error
        return self.compiled[rule]


def _within(limit_s: float, match: Callable[..., Any], target: str) -> Any:
    """Return the match, or raise TimeoutError if it takes this thread longer.

    regex's own clock runs for all threads of a process that computes beside: then it is tried once
    more, with twice the time.
    """
    start, given_s = time.thread_time(), limit_s
    while True:
        try:
            return match(target, timeout=given_s)
        except TimeoutError:
            if time.thread_time() - start >= limit_s:
                raise
            given_s *= 2


@dataclass(frozen=True)
class PeftConfig:
    """A parsed config; `raw` holds the JSON object.

    `paths` holds the layers whose path in the adapter's file is another than the base's: the
    config's rules and patterns are about the file's.
    """

    raw: dict[str, Any]
    paths: Mapping[str, str] = field(default_factory=dict)
    _matcher: _Matcher = field(default_factory=_Matcher, repr=False, compare=False)
    _names: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def parse(cls, data: bytes) -> "PeftConfig":
        """Return the config in `data`.

        Raises:
            TooLarge: over 1 MiB.
            InvalidAdapter: no JSON object that all programs read alike, or nested too deeply; a
                field with NaN or half of a character is named.
        """
        if len(data) > MAX_CONFIG_BYTES:
            message = f"the config has {len(data)} bytes; at most {MAX_CONFIG_BYTES} are taken"
            raise TooLarge(message, "config")
        try:
            raw = strict_json(data, checks_values=False)
        except UnclearJson as error:
            raise InvalidAdapter(f"the config {error}", "config") from error
        if not isinstance(raw, dict):
            raise InvalidAdapter("the config is not a JSON object", "config")
        for name, value in raw.items():
            _check_values(name, value)
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

    def of_paths(self, paths: Mapping[str, str]) -> "PeftConfig":
        """Return the config of a file that spells these layers otherwise: target -> its path."""
        return replace(self, paths=paths)

    def canonical(self) -> bytes:
        """Return the bytes that enter the digest: the same for any spacing and order of keys."""
        return json.dumps(self.raw, sort_keys=True, separators=(",", ":")).encode()

    def refuse_unread(self, read: Iterable[str]) -> None:
        """Refuse a field that is set, that nothing reads and that may change the computation.

        Args:
            read: what the adapter's method reads, and what the base's head does.

        Raises:
            InvalidAdapter: names the field, its value and the way out.
        """
        read = frozenset(read)
        for name, value in self.raw.items():
            if name in VALUES:
                self._check_value(name, value)
            elif value and name not in read and name not in NEUTRAL and name not in READ:
                why = REFUSED.get(name, "it is no field of this method; leave it out")
                raise InvalidAdapter(f"{name} = {_short(value)} is not supported: {why}", name)

    @staticmethod
    def _check_value(name: str, value: Any) -> None:
        if is_one_of(value, VALUES[name]):
            return
        known = ", ".join(_json(one) for one in VALUES[name])
        why = REFUSED.get(name, "PEFT has no such value")
        raise InvalidAdapter(f"{name} = {_short(value)} is not one of {known}: {why}", name)

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
        target = self.paths.get(target, target)
        for key, specific in table.items():
            rule = pattern.rule.replace("{key}", key)
            if self._matcher.match(rule, target, pattern.field):
                return specific
        return table.get(target, value)  # a full path, which PEFT's rule may not match

    def selects(self, target: str) -> bool:
        """Return whether the config's target rules take the module path `target`.

        Raises:
            InvalidAdapter: a rule is malformed or takes too long.
        """
        target = self.paths.get(target, target)
        if self._listed("exclude_modules", target):
            return False
        if is_all_linear(self.raw.get("target_modules")):
            return True
        if not self._listed("target_modules", target):
            return False
        layers, listed = self.raw.get("layers_to_transform"), self.raw["target_modules"]
        # As in PEFT: a pattern or a full path names the layer itself.
        if layers is None or layers == [] or isinstance(listed, str) or target in listed:
            return True
        return self._layer_of(target) in (layers if isinstance(layers, list) else [layers])

    def _listed(self, name: str, target: str) -> bool:
        rule = self.raw.get(name)
        if rule is None:
            return False
        if isinstance(rule, str):
            return self._matcher.match(rule, target, name, full=True) is not None
        if name not in self._names:
            if not isinstance(rule, list) or not all(isinstance(item, str) for item in rule):
                raise InvalidAdapter(f"{name} is neither a pattern nor a list of names", name)
            self._names[name] = frozenset(rule)
        return any(ending in self._names[name] for ending in _endings(target))

    def _layer_of(self, target: str) -> int | None:
        patterns = self.raw.get("layers_pattern") or []
        patterns = [patterns] if isinstance(patterns, str) else patterns
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            message = "layers_pattern is neither a pattern nor a list of patterns"
            raise InvalidAdapter(message, "layers_pattern")
        index = r"\.(?P<idx>\d+)\."
        rules = [rf"(?:^|.*?\.){p}{index}" for p in patterns] or [rf".*?\.[^.]*{index}"]
        for rule in rules:
            found = self._matcher.match(rule, target, "layers_pattern")
            if found:
                layer = found.groupdict().get("idx") or ""
                return int(layer) if layer.isdecimal() else None
        return None


def is_all_linear(rule: object) -> bool:
    """Return whether `target_modules` says: all that there are."""
    return isinstance(rule, str) and rule.lower() == ALL_LINEAR


def _endings(path: str) -> Iterator[str]:
    """Yield a path and what follows each of its dots."""
    yield path
    dot = path.find(".")
    while dot >= 0:
        yield path[dot + 1 :]
        dot = path.find(".", dot + 1)


def _check_values(name: str, value: Any) -> None:
    try:
        check_values({name: value})
    except UnclearJson as error:
        raise InvalidAdapter(f"{name} = {_short(value)} {error}", name) from error


def _json(value: Any) -> str:
    """Return a value as a config file has it."""
    return json.dumps(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
