"""Converts an adapter: to Overtone's file or PEFT's, from FourierFT's authors', or to a method."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from adapters_core.base.spec import BaseSpec, weights_of
from adapters_core.contract.layer import Shape
from adapters_core.contract.method_registry import registered
from adapters_core.errors import InvalidAdapter
from adapters_core.format.read import Adapter
from adapters_core.format.write import CONFIG_NAME, write_adapter
from adapters_core.interchange.fits import FITTED
from adapters_core.interchange.official import is_official, read_official
from adapters_core.interchange.project import Projection, Target, project
from adapters_core.interchange.stamp import stamped, unstamped
from adapters_core.layers.basis_cache import BasisCache
from server.base.loading import Base
from server.tools.adapter_folder import AdapterFolder, new_folder

MAX_SEEDS = 64
#: Every `peft_type` that PEFT 0.21.2 loads.
PEFT_TYPES = frozenset(
    (
        *("ADALORA", "ADAMSS", "ADAPTION_PROMPT", "BEFT", "BOFT", "C3A", "CARTRIDGE", "CPT"),
        *("DEFT", "DELORA", "FOURIERFT", "FROD", "GLORA", "GRALORA", "HIRA", "HRA", "IA3"),
        *("LILY", "LN_TUNING", "LOHA", "LOKR", "LORA", "MISS", "MULTITASK_PROMPT_TUNING", "OFT"),
        *("OSF", "PEANUT", "POLY", "PREFIX_TUNING", "PROMPT_TUNING", "PSOFT", "PVERA"),
        *("P_TUNING", "RANDLORA", "ROAD", "SHADOW", "SHIRA", "SUPERTUNING", "TINYLORA"),
        *("TRAINABLE_TOKENS", "UNILORA", "VBLORA", "VERA", "WAVEFT", "XLORA"),
    )
)


@dataclass(frozen=True)
class Request:
    """How to convert an adapter.

    Args:
        to: the method to project onto; None keeps the adapter's own.
        options: of that method: n, scale, seed and so on; None where not given.
        seeds: how many seeds to try, from `seed` on.
        entry_seed: of an official FourierFT checkpoint.
        is_plain: leave Overtone's metadata out.
        replaces: whether the folder may be there already.
    """

    to: str | None = None
    options: Mapping[str, Any] | None = None
    seeds: int = 1
    entry_seed: int | None = None
    is_plain: bool = False
    replaces: bool = False


@dataclass(frozen=True)
class Conversion:
    """What was written, for which shapes; `projection` where the method changed."""

    adapter: Adapter
    shapes: Mapping[str, Shape]
    source_method: str
    projection: Projection | None


def convert(
    source: AdapterFolder,
    out: Path,
    base: Base,
    request: Request,
    on_layer: Callable[[str], None] = lambda path: None,
) -> Conversion:
    """Write the converted adapter to `out`; it is read back before it is moved there.

    Raises:
        AdapterError: the source, the target or their combination is refused.
        BadFolder: `out` cannot be used.
    """
    target = _target(request)
    with new_folder(out, replaces=request.replaces) as building:
        made = AdapterFolder(building)
        _write_own(source, made, base, request.entry_seed)
        adapter = made.read(base.spec)
        projection = None
        if target is not None:
            _refuse_others(adapter, base.spec)
            basis_cache = BasisCache(torch.device("cpu"), weights_of(base.model, base.spec))
            projection = project(adapter, base.spec.layers, basis_cache, target, on_layer)
            write_adapter(building, projection.methods, projection.layers, base.spec)
        if request.is_plain:
            _make_plain(made)
        done, name = made.read(base.spec), adapter.description.method
        return Conversion(done, base.spec.layers, name, projection)


def _refuse_others(adapter: Adapter, spec: BaseSpec) -> None:
    """Refuse to project what is no update of a linear."""
    others = [path for path in adapter.methods if path not in spec.targets]
    if others:
        raise InvalidAdapter(
            f"the adapter changes {others[0]}, which is no linear below the output layer: only "
            "such linears are projected; leave --to out, or train without that layer",
            others[0],
        )


def _write_own(
    source: AdapterFolder, made: AdapterFolder, base: Base, entry_seed: int | None
) -> None:
    """Write the source as Overtone's file, with its method and coefficients unchanged."""
    config = source.config
    if is_official(config):
        methods, layers = read_official(source.weights, config, base.spec, entry_seed)
        write_adapter(made.path, methods, layers, base.spec)
        return
    if entry_seed is not None:
        message = (
            f"--entry-seed does not apply to a {config.peft_type} file, which has its own seed"
        )
        raise InvalidAdapter(message, "entry_seed")
    adapter = source.read(base.spec)
    (made.path / CONFIG_NAME).write_bytes(source.config_bytes)
    made.weights.write_bytes(stamped(source.weights.read_bytes(), adapter, base.spec))


def _make_plain(made: AdapterFolder) -> None:
    """Remove Overtone's metadata.

    Raises:
        InvalidAdapter: PEFT would not read the file even so.
    """
    config = made.config
    if config.peft_type.upper() not in PEFT_TYPES:
        raise InvalidAdapter(f"--plain: PEFT has no method {config.peft_type}", "peft_type")
    if config.raw.get("entry_seed") is not None:
        message = "--plain: PEFT has no seed for the positions of the authors' own FourierFT code"
        raise InvalidAdapter(message, "entry_seed")
    made.weights.write_bytes(unstamped(made.weights.read_bytes()))


def _target(request: Request) -> Target | None:
    """Return what to project onto.

    Raises:
        InvalidAdapter: the method or an option of it is refused.
    """
    given = {name: value for name, value in (request.options or {}).items() if value is not None}
    if request.to is None:
        if given or request.seeds != 1:
            named = ", ".join(_flag(name) for name in given) or "--seeds"
            raise InvalidAdapter(f"{named}: only with --to {'|'.join(FITTED)}", "to")
        return None
    if request.to not in FITTED:
        what = "cannot be projected onto" if request.to in registered() else "is not known"
        raise InvalidAdapter(f"--to {request.to[:80]}: {what}; choose {', '.join(FITTED)}", "to")
    kind = registered()[request.to]
    known = {field.name for field in fields(kind)}
    for name in [*given, *(["seed"] if request.seeds != 1 else [])]:
        if name not in known:
            raise InvalidAdapter(f"{_flag(name)}: {request.to} has none", name)
    if not 1 <= request.seeds <= MAX_SEEDS:
        raise InvalidAdapter(f"--seeds {request.seeds} is not in 1..{MAX_SEEDS}", "seeds")
    method: Any = kind(**given)
    tried = [method]
    tried += [replace(method, seed=method.seed + i) for i in range(1, request.seeds)]
    return Target(tried, is_cut="n" not in given)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
