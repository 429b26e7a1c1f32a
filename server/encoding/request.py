"""The batcher's record of a request, and its limits."""

from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from server.adapters.modes import Mode
from server.adapters.residency import Entry
from server.encoding.batch_queue import QueuedInput
from server.encoding.encoder import Input

#: Images of one request.
MAX_IMAGES = 64


@dataclass(eq=False)
class PendingRequest:
    """An accepted request: `future` gets the results in the inputs' order, or an error.

    Args:
        tenant: that it belongs to.
        deadline: by the batcher's clock; None for none.
        mode, lease: of its adapter; None for the base.
        results: None where an input is not answered yet.
        is_background: a batch's: computed while nothing else is ready.
    """

    tenant: str
    deadline: float | None
    mode: Mode | None
    lease: Entry | None
    results: list[Tensor | None]
    future: "Future[list[Tensor]]" = field(default_factory=Future)
    queued: list[QueuedInput["Part"]] = field(default_factory=list)
    is_over: bool = False
    is_background: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether its adapter is in memory."""
        return self.lease is None or self.lease.is_ready


@dataclass(frozen=True, eq=False)
class Part:
    """One input of a request."""

    request: PendingRequest
    number: int
    given: Input


@dataclass(frozen=True)
class Limits:
    """How much an encoder takes at once.

    Args:
        mode: of all adapters.
        max_batch: inputs of one batch.
        max_tokens: tokens of one batch, padding included; a longer text goes alone.
        max_open: inputs of one tenant that may be open before a request is refused.
        max_pixels: of an image as it is sent.
    """

    mode: Mode
    max_batch: int
    max_tokens: int
    max_open: int
    max_pixels: int
