"""Where the rows of a step on a device lie: in tensors, so that the step can be replayed."""

from dataclasses import dataclass, field

from torch import Tensor

from server.engine.attention import Span
from server.engine.mask_patterns import MaskPattern


@dataclass(frozen=True)
class DeviceLayout:
    """Where the rows of one step lie, on the device: single tokens first, then prompt pieces.

    Args:
        write: int64 `[T]`, the flat cache cell of every row.
        pages: int32 `[N, P]`, the block table; behind a sequence's own stand zeros.
        lengths: int32 `[N]`, tokens in the cache after the step.
        starts: int32 `[N + 1]`, the first row of each sequence, and behind the last one's end.
        num_single: how many sequences, the first, have one row each.
        spans: those of the prompt pieces.
        is_long: bool `[1, T]`, rows of texts beyond the border of rotations; None: no row is.
    """

    write: Tensor
    pages: Tensor
    lengths: Tensor
    starts: Tensor
    num_single: int
    spans: tuple[Span, ...] = ()
    is_long: Tensor | None = None
    #: MaskPattern -> what the single rows see; the same in every layer of a step that has it.
    seen: dict[MaskPattern, tuple[Tensor, Tensor]] = field(default_factory=dict, compare=False)

    @property
    def longest_piece(self) -> int:
        """Return the most rows that any sequence has."""
        return max((span.count for span in self.spans), default=1)
