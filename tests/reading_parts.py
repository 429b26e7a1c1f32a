"""Names of a PEFT file on the tiny Llama, and the refusal of one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters_core.errors import AdapterError
from adapters_core.format.read import Adapter

Read = Callable[..., Adapter]
Q0 = "model.layers.0.self_attn.q_proj"
V1 = "model.layers.1.self_attn.v_proj"
KEY = f"base_model.model.{Q0}.fourierft_spectrum"


def refused(read: Read, folder: Path, kind: type[AdapterError], **options: Any) -> AdapterError:
    with pytest.raises(kind) as caught:
        read(folder, **options)
    assert type(caught.value) is kind
    return caught.value
