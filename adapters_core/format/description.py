"""What is known of an adapter once its file and config have been checked against a base."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AdapterDescription:
    """The facts about one immutable adapter, derived from its bytes and the base's spec.

    Args:
        digest: `sha256:` and 64 hex digits, over the coefficient file and its config.
        method: the registered method's name, e.g. `fourierft`.
        method_config: the method's hyper-parameters as JSON values.
        base_name: the base it was checked against.
        base_fingerprint: that base's fingerprint.
        base_verified: True when the file itself carried this fingerprint.
        target_modules: full paths of the adapted linears, in the base's order.
        num_coefficients: numbers the adapter owns, over all layers.
        size_bytes: bytes of the coefficient file.
    """

    digest: str
    method: str
    method_config: dict[str, Any]
    base_name: str
    base_fingerprint: str
    base_verified: bool
    target_modules: tuple[str, ...]
    num_coefficients: int
    size_bytes: int
