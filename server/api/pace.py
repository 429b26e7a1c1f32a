"""How slowly a peer may send a request or read an answer. Pure: seconds are arguments.

As Apache's mod_reqtimeout: some time at once, and a little more for every byte, so that a large
body over a slow line has hours and one that comes byte by byte has not.
"""

from dataclasses import dataclass

#: Over the whole, a peer moves at least so many bytes a second.
MIN_BYTES_S = 500


@dataclass
class Pace:
    """What one peer has moved so far, and how long it was waited for.

    Args:
        stall_s: seconds without a byte after which it is given up.
    """

    stall_s: float
    idle_s: float = 0.0
    waited_s: float = 0.0
    num_bytes: int = 0

    def moved(self, num_bytes: int, waited_s: float) -> None:
        """Count what has moved within `waited_s` more seconds of waiting; perhaps nothing."""
        self.num_bytes += num_bytes
        self.waited_s += waited_s
        self.idle_s = 0.0 if num_bytes else self.idle_s + waited_s

    @property
    def patience_s(self) -> float:
        """Return for how many seconds more the peer is waited for; not positive: no longer."""
        earned_s = self.stall_s + self.num_bytes / MIN_BYTES_S
        return min(self.stall_s - self.idle_s, earned_s - self.waited_s)

    @property
    def fault(self) -> str:
        """Return what is wrong with a request that is given up."""
        return (
            f"the request came too slowly: {self.num_bytes} bytes, then nothing in time. Send at "
            f"least {MIN_BYTES_S} bytes a second, without a pause of {self.stall_s:g} s"
        )
