"""Write an adapter as PEFT's directory, with the base's fingerprint and places in the header."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save

from adapters_core.adapter import METADATA_KEY, PREFIX
from adapters_core.base import BaseSpec
from adapters_core.method import Coefficients, Method

WEIGHTS_NAME = "adapter_model.safetensors"
CONFIG_NAME = "adapter_config.json"


def write_adapter(
    folder: Path, method: Method, layers: Mapping[str, Coefficients], base: BaseSpec
) -> None:
    """Write `layers` (target -> coefficients of one method) to `folder`; PEFT reads it unchanged.

    The weights are renamed into place last, so a folder with weights is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{PREFIX}{target}.{name}": tensor.detach().cpu().contiguous()
        for target, layer in layers.items()
        for name, tensor in layer.items()
    }
    config = {
        "peft_type": method.peft_type,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "inference_mode": True,
        "target_modules": list(layers),
        "bias": "none",
    } | method.to_peft()
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    overtone = {"base": {"name": base.name, "fingerprint": base.fingerprint}}
    digests = {}
    for shape in sorted({base.targets[target] for target in layers}):
        digest = method.places_digest(shape)
        if digest is not None:
            digests[f"{shape.out}x{shape.in_}"] = digest
    if digests:
        overtone["places"] = digests
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
