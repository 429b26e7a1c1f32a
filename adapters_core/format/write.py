"""Write an adapter as PEFT's directory, with the base's fingerprint and positions in the header."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Coefficients, Method
from adapters_core.format.header_parts import METADATA_KEY
from adapters_core.format.keys import PREFIX, key_of

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"


def write_adapter(  # noqa: PLR0913 (the parts of the two files)
    folder: Path,
    method: Method | Mapping[str, Method],
    layers: Mapping[str, Coefficients],
    base: BaseSpec,
    *,
    head: Coefficients | None = None,
    labels: Sequence[str] | None = None,
    task_type: str | None = "CAUSAL_LM",
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write `layers` (target -> coefficients) to `folder`; PEFT reads it unchanged.

    The weights are renamed into place last, so a folder with weights is complete.

    Args:
        folder: made if it is not there.
        method: of every layer, or of each target; all of one kind.
        layers: what the file is to hold.
        base: which the adapter is for.
        head: parameters after the base's body that are replaced, by name (`modules_to_save`).
        labels: names of the head's rows.
        task_type: PEFT's name of what the adapter is for; None where PEFT has none.
        training: config fields that say how it was trained.

    Raises:
        InvalidAdapter: layers differ in a way that PEFT's config has no word for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    methods = dict.fromkeys(layers, method) if isinstance(method, Method) else method
    kind = type(next(iter(methods.values())))
    tensors = _tensors_of(methods, layers, base, head or {})
    config: dict[str, Any] = {
        "peft_type": kind.peft_type,
        "task_type": task_type,
        "base_model_name_or_path": base.name,
        "inference_mode": True,
        "target_modules": list(layers),
        "bias": "none",
    } | kind.config_of(methods)
    config |= training or {}
    if head:
        config["modules_to_save"] = sorted({name.partition(".")[0] for name in head})
    if labels is not None:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    overtone = {"base": {"name": base.name, "fingerprint": base.fingerprint}}
    overtone |= kind.metadata_of(methods, base.layers)
    _write_weights(folder, tensors, overtone)


def _tensors_of(
    methods: Mapping[str, Method],
    layers: Mapping[str, Coefficients],
    base: BaseSpec,
    head: Coefficients,
) -> dict[str, Tensor]:
    """Return the file's tensors by their keys, in memory and contiguous."""
    tensors = {PREFIX + name: tensor for name, tensor in head.items()}
    for target, layer in layers.items():
        for name, spec in methods[target].tensors(base.layers[target]).items():
            tensors[key_of(target, name, spec)] = layer[name]
    return {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}


def _write_weights(folder: Path, tensors: dict[str, Tensor], overtone: Mapping[str, Any]) -> None:
    part = folder / (WEIGHTS_NAME + ".part")
    metadata = {"format": "pt", METADATA_KEY: json.dumps(overtone)}
    part.write_bytes(_with_sorted_metadata(save(tensors, metadata)))
    os.replace(part, folder / WEIGHTS_NAME)


def _with_sorted_metadata(file: bytes) -> bytes:
    """Return the same file whatever order safetensors gave its metadata (a hash map's, random).

    An adapter that is written twice has one digest.
    """
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)  # the data part stays aligned
    return len(raw).to_bytes(8, "little") + raw + file[start:]
