"""An adapter read from its file and config, and checked against a base.

The file names layers by the base's own module paths, as PEFT does:
`base_model.model.<path>.<tensor>`. Shapes always come from the base, never from the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from adapters_core.base.heads import Head, labels_in
from adapters_core.base.spec import BaseSpec
from adapters_core.contract.digest import digest_of
from adapters_core.contract.layer import Coefficients
from adapters_core.contract.method import Method
from adapters_core.contract.safetensors_header import (
    DEFAULT_MAX_FILE_BYTES,
    RawHeader,
    read_raw_header,
    read_tensors,
)
from adapters_core.errors import InvalidAdapter, NoEffect
from adapters_core.format.copies import check_copies
from adapters_core.format.description import AdapterDescription
from adapters_core.format.keys import PREFIX
from adapters_core.format.reading_plan import ReadingPlan, plan_of
from adapters_core.format.tying import check_tied

#: Plans that a reader keeps, and the longest header and config of one: what they take is bounded.
_MAX_PLANS = 32
_MAX_KEPT_BYTES = 128 << 10


@dataclass(frozen=True)
class Adapter:
    """A checked adapter: its description, and method and coefficients of every adapted layer.

    On a classifier it may have a head of its own, and names for that head's labels.
    """

    description: AdapterDescription
    methods: Mapping[str, Method]
    layers: Mapping[str, Coefficients]
    head: Head | None = None
    labels: Sequence[str] | None = None


class AdapterReader:
    """Reads adapters of one base; safe from many threads.

    What header and config decide is kept for the last recipes: adapters of one recipe differ in
    numbers alone, and in a file of kilobytes with many small tensors it is most of the work.

    Args:
        base: that the adapters are for.
    """

    def __init__(self, base: BaseSpec) -> None:
        self._base = base
        self._kept_plan = lru_cache(_MAX_PLANS)(partial(plan_of, base=base))

    def read(
        self,
        file: Path,
        config: bytes,
        max_bytes: int = DEFAULT_MAX_FILE_BYTES,
        digest: str | None = None,
    ) -> Adapter:
        """Return the adapter in `file`, after every check that does not need the base's weights.

        Args:
            file: its coefficients.
            config: the bytes of its config.
            max_bytes: of the file.
            digest: that both were held against already; None: it is computed.

        Raises:
            AdapterError: see adapters_core/errors.py; `param` names the tensor or field at fault.
        """
        plan, base = self._plan(read_raw_header(file, max_bytes), config), self._base
        parts = plan.parts
        tensors = read_tensors(file, parts.whole)
        check_copies(tensors, parts.whole, parts.copies, base)
        layers = {
            target: {name: tensors[key] for name, key in keys.items()}
            for target, keys in plan.keys.items()
        }
        methods = _checked_methods(plan, layers, base)
        saved = {name: tensors[PREFIX + name] for name in parts.saved}
        return Adapter(
            _description(plan, methods, base, digest or digest_of(file, plan.canonical_config)),
            methods,
            layers,
            Head(saved, parts.num_labels) if saved else None,
            labels_in(parts.config, parts.num_labels) if base.head else None,
        )

    def _plan(self, raw: RawHeader, config: bytes) -> ReadingPlan:
        is_kept = len(raw.text) + len(config) <= _MAX_KEPT_BYTES
        return self._kept_plan(raw, config) if is_kept else plan_of(raw, config, self._base)


def read_adapter(
    file: Path, config_bytes: bytes, base: BaseSpec, max_bytes: int = DEFAULT_MAX_FILE_BYTES
) -> Adapter:
    """Return one adapter, as `AdapterReader.read` does."""
    return AdapterReader(base).read(file, config_bytes, max_bytes)


def _checked_methods(
    plan: ReadingPlan, layers: Mapping[str, Coefficients], base: BaseSpec
) -> dict[str, Method]:
    """Return the methods of all layers, with what the file's values say of them, after a check."""
    parts, chosen = plan.parts, plan.methods
    check_tied(parts.config, {**chosen, **parts.replaced}, layers, base)
    adapted = parts.kind.with_values(chosen, {target: layers[target] for target in chosen})
    methods = {**adapted, **parts.replaced}
    for target, method in methods.items():
        _check_values(method, layers[target], base, target)
    if not parts.saved and all(methods[target].is_zero(layers[target]) for target in methods):
        raise NoEffect("every coefficient is zero: the base would answer under this name", "file")
    return methods


def _description(
    plan: ReadingPlan, methods: Mapping[str, Method], base: BaseSpec, digest: str
) -> AdapterDescription:
    parts = plan.parts
    adapted = {target: one for target, one in methods.items() if target not in parts.replaced}
    return AdapterDescription(
        digest=digest,
        method=parts.kind.name,
        method_config=_common_config(adapted),
        base_name=base.name,
        base_fingerprint=base.fingerprint,
        base_verified=parts.is_verified,
        target_modules=tuple(methods),
        num_coefficients=sum(entry.count for entry in parts.counted.tensors.values()),
        size_bytes=plan.file_bytes,
    )


def _check_values(method: Method, layer: Coefficients, base: BaseSpec, target: str) -> None:
    """Let the method look at its values; a refusal names the tensor as the file does."""
    try:
        method.check(layer, base.layers[target])
    except InvalidAdapter as error:
        key = PREFIX + f"{target}.{error.param}"
        raise InvalidAdapter(f"{key}: {error.message}", key) from error


def _common_config(methods: Mapping[str, Method]) -> dict[str, Any]:
    """Return the hyper-parameters; a value that differs between layers becomes a sorted list."""
    configs = [method.config() for method in set(methods.values())]
    values = {name: {config[name] for config in configs} for name in configs[0]}
    return {name: v.pop() if len(v) == 1 else sorted(v) for name, v in values.items()}
