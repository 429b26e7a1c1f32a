"""Checkpoints of the FourierFT authors' own code, read as FourierFT adapters without a loss.

github.com/Chaos96/fourierft, a fork of PEFT (peft/src/peft/tuners/fourier, commit 4986a28). Its
config says `peft_type` FOURIER, `n_frequency` and `scale`; a layer's coefficients are the parameter
`spectrum.<adapter name>`. What differs from PEFT's FourierFT:

- It adds x @ delta where PEFT adds x @ delta.T, so rows and columns of the positions are swapped;
  the coefficients stay as they are. All layers are square: the code knows the input's width alone.
- Positions are no part of a checkpoint. With `--share_entry` they are the first n of
  `randperm(d * d)` under `--entry_seed` (2024 in the scripts); no file says so, the caller has to.
  Without it, and with `--set_bias`, each layer draws from the run's global generator, and they
  cannot be drawn again.
- The forward pass multiplies by `scale`, the merge by 300: this is the forward pass.
- `save_pretrained` keeps names with `fourier_` in them, and so no spectrum. Checkpoints that hold
  anything are state dicts saved by hand; names with and without the adapter's are read.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Coefficients, Shape
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.safetensors_header import TensorEntry, read_header, read_tensors
from adapters_core.errors import InvalidAdapter, UnusedTensors
from adapters_core.format.keys import PREFIX
from adapters_core.methods.fourierft import FourierFT
from adapters_core.positions.seeded import flat_positions

#: `peft_type` of these checkpoints.
OFFICIAL_TYPE = "FOURIER"
#: The scripts' own entry seed.
USUAL_ENTRY_SEED = 2024
_FIELDS = frozenset({"n_frequency", "scale", "init_fourier_weights"})
_NAME = re.compile(r"^(?P<path>.+)\.(?P<kind>spectrum|indices)(\.[^.]+)?$")


def is_official(config: PeftConfig) -> bool:
    """Return whether a directory's config is one of the authors' code."""
    return config.peft_type.upper() == OFFICIAL_TYPE


def read_official(
    file: Path, config: PeftConfig, base: BaseSpec, entry_seed: int | None
) -> tuple[dict[str, FourierFT], dict[str, Coefficients]]:
    """Return method and coefficients of every layer of an official checkpoint.

    Args:
        file: safetensors; spectra and, if they were saved, indices.
        config: the checkpoint's.
        base: what it was trained on.
        entry_seed: which seed drew the shared positions; None where indices are to show that it was
            the scripts' own.

    Raises:
        InvalidAdapter: the positions cannot be known, or the file fits neither config nor base.
    """
    config.refuse_unread(_FIELDS)
    header = read_header(file)
    found = _layers_of(header.tensors, base)
    if entry_seed is None and not all("indices" in keys for keys in found.values()):
        raise InvalidAdapter(_UNKNOWN_POSITIONS, "entry_seed")
    seed = USUAL_ENTRY_SEED if entry_seed is None else entry_seed
    n, scale = config.integer("n_frequency", 100), config.number("scale", 0.1)
    method = FourierFT(n, scale, seed, transposed=True)
    for path, keys in found.items():
        _check_layer(method, path, base.targets[path], keys, header.tensors)
    tensors = read_tensors(file, header)
    for path, keys in found.items():
        if "indices" in keys:
            _check_indices(tensors[keys["indices"]], method, path, base.targets[path])
    layers = {p: {"fourierft_spectrum": tensors[keys["spectrum"]]} for p, keys in found.items()}
    return dict.fromkeys(found, method), dict(layers)


def _layers_of(entries: Mapping[str, TensorEntry], base: BaseSpec) -> dict[str, dict[str, str]]:
    """Return path -> spectrum and indices -> key in the file, in the base's order."""
    found: dict[str, dict[str, str]] = {}
    for key in entries:
        match = _NAME.match(key.removeprefix(PREFIX))
        path = match["path"] if match else ""
        if match is None or path not in base.targets:
            raise UnusedTensors(
                f"{key} is no spectrum of a layer of base {base.name!r}; a checkpoint may hold "
                f"{PREFIX}<layer>.spectrum alone: drop what the base has, heads are not served",
                key,
            )
        if match["kind"] in found.setdefault(path, {}):
            raise InvalidAdapter(f"{path} has two tensors called {match['kind']}", key)
        found[path][match["kind"]] = key
    return {path: found[path] for path in base.targets if path in found}


def _check_layer(
    method: FourierFT,
    path: str,
    shape: Shape,
    keys: Mapping[str, str],
    entries: Mapping[str, TensorEntry],
) -> None:
    """Hold one layer's tensors against the config and the layer."""
    if "spectrum" not in keys:
        raise InvalidAdapter(f"{path} has indices and no spectrum", keys["indices"])
    if shape.out != shape.in_:
        message = f"{path} is {shape.out} x {shape.in_}; the authors' code adapts square layers"
        raise InvalidAdapter(message, keys["spectrum"])
    method.tensors(shape)
    expected = {"spectrum": ((method.n,), True), "indices": ((2, method.n), False)}
    for kind, key in keys.items():
        entry, (wanted, floating) = entries[key], expected[kind]
        if entry.shape != wanted or entry.dtype.is_floating_point != floating:
            got = f"{entry.dtype} {list(entry.shape)}"
            raise InvalidAdapter(f"{key} is {got}; n_frequency wants {list(wanted)}", key)


def _check_indices(indices: Tensor, method: FourierFT, path: str, shape: Shape) -> None:
    """Refuse positions that the entry seed does not give: a FourierFT file has a seed's alone."""
    flat = flat_positions(method.seed, method.n, shape.out * shape.in_)
    drawn = torch.stack([flat // shape.in_, flat % shape.in_])
    if not torch.equal(indices.long(), drawn):
        raise InvalidAdapter(
            f"the indices of {path} are not those of entry seed {method.seed}: an adapter with "
            "positions that no seed gives cannot be written as FourierFT",
            "entry_seed",
        )


_UNKNOWN_POSITIONS = (
    "the file does not say where its coefficients stand. Trained with --share_entry: give "
    f"--entry-seed ({USUAL_ENTRY_SEED} in the authors' scripts). Trained without it, as their "
    "LLaMA scripts do: every layer drew from the run's global generator, and the positions are lost"
)
