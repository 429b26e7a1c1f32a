"""How long something is waited for, and how long a server is asked again that does not answer."""

from time import monotonic

from .errors import APIError, OvertoneError

#: Errors in a row are borne for so long.
PATIENCE_S = 120.0
#: A stream that was open for so long was an answer, also one with nothing new in it.
HELD_S = 10.0


class Patience:
    """Bears errors that pass by themselves; the time counts from the first one in a row."""

    def __init__(self) -> None:
        self._failing_since: float | None = None
        self._open_since: float | None = None

    def renew(self) -> None:
        """Start afresh: the server has answered."""
        self._failing_since = None

    def note_open(self) -> None:
        """Remember that a stream has begun."""
        self._open_since = monotonic()

    def pause_s(self, error: OvertoneError, least_s: float) -> float:
        """Seconds until the server is asked again; raises the error when it came for too long.

        Args:
            error: what came instead of an answer.
            least_s: the pause where the server does not ask for a longer one.
        """
        now = monotonic()
        opened, self._open_since = self._open_since, None
        if opened is not None and now - opened >= HELD_S:
            self.renew()
        if self._failing_since is None:
            self._failing_since = now
        wanted = error.retry_after if isinstance(error, APIError) else None
        pause = max(least_s, wanted or 0.0)
        if now + pause > self._failing_since + PATIENCE_S:
            raise error
        return pause


class Deadline:
    """The end of a wait, counted from the making of this.

    Args:
        timeout_s: from now on; None is no end.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._began, self._timeout_s = monotonic(), timeout_s

    @property
    def waited_s(self) -> float:
        """Seconds since the beginning."""
        return monotonic() - self._began

    @property
    def left_s(self) -> float | None:
        """Seconds to the end, 0 after it; None where there is no end."""
        if self._timeout_s is None:
            return None
        return max(0.0, self._timeout_s - self.waited_s)

    def pause_s(self, seconds: float) -> float:
        """The pause, or what is left of the time."""
        left = self.left_s
        return seconds if left is None else min(seconds, left)
