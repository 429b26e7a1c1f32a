"""What a resident adapter holds on the device, by mode."""

from dataclasses import dataclass, field

from torch import Tensor

from adapters_core.base.heads import Head
from adapters_core.layers.bank import Bank


@dataclass(frozen=True)
class Factored:
    """An adapter's slot in a bank; an entry's payload in factored mode.

    `weights`: merged weights of the layers that have no factored form.
    """

    bank: Bank
    slot: int
    head: Head | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Merged:
    """An adapter's own weights; an entry's payload in merged mode."""

    weights: dict[str, Tensor]
    head: Head | None = None
