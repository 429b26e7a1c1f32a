"""What a resident adapter holds on the device, by mode."""

from dataclasses import dataclass

from torch import Tensor

from adapters_core.bank import Bank
from adapters_core.heads import Head


@dataclass(frozen=True)
class Factored:
    """An adapter's slot in a bank; an entry's payload in factored mode."""

    bank: Bank
    slot: int
    head: Head | None = None


@dataclass(frozen=True)
class Merged:
    """An adapter's own weights; an entry's payload in merged mode."""

    weights: dict[str, Tensor]
    head: Head | None = None
