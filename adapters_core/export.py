"""Write an adapter as PEFT's directory, with the base's fingerprint and places in the header."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

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
    for target in layers:
        digest = method.places_digest(base.targets[target])
        if digest is not None:
            digests["{}x{}".format(*base.targets[target])] = digest
    if digests:
        overtone["places"] = digests
    part = folder / (WEIGHTS_NAME + ".part")
    save_file(tensors, part, metadata={"format": "pt", METADATA_KEY: json.dumps(overtone)})
    os.replace(part, folder / WEIGHTS_NAME)
