# Made of _async/state.py by `./run reference`: change that file.
"""What is asked of the server itself: what it serves, whether it is ready, what it does."""

from .. import _activity_calls as activity_calls
from .. import _pauses as pauses
from .. import _requests as requests
from .. import _responses as responses
from .._patience import Deadline
from ..activity_types import Activity
from ..errors import PASSING, Timeout, Unavailable
from ..types import Health, Model, Version
from .sender import Sender

_LOOK_S = 0.2  # between two looks at a server that is starting


class StateCalls:
    """The client's methods about the server."""

    _sender: Sender

    def models(self, *, limit: int | None = None, after: str | None = None) -> list[Model]:
        """Everything that can be named as `model`: the base, then its adapters by name.

        Args:
            limit: at most so many; None: every one.
            after: only what comes after this one.
        """
        return self._sender.all(requests.models(limit, after), responses.to_model)

    def model(self, name: str) -> Model:
        """One of them, by any name that a request may use; `raw` has what it takes."""
        return responses.parse_model(self._sender.send(requests.model(name)))

    def health(self) -> Health:
        """Whether the server takes requests; a server that is starting or draining says why."""
        return self._health(None)

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Return as soon as the server takes requests, also one that is not there yet.

        Raises:
            Timeout: it does not, after so many seconds; the message says why.
        """
        deadline, reason = Deadline(timeout_s), "there was no time to ask it"
        while left_s := deadline.left_s:
            try:
                health = self._health(left_s)
            except PASSING as error:
                reason = error.message
            else:
                if health.is_ready:
                    return
                reason = str(health.reason)
            pauses.pause(deadline.pause_s(_LOOK_S))
        raise Timeout(f"the server is not ready after {timeout_s:g} s: {reason}")

    def version(self) -> Version:
        """The server's version and its base."""
        return responses.parse_version(self._sender.send(requests.version()))

    def activity(self, limit: int | None = None) -> Activity:
        """What the server does now, adapter by adapter; the key needs the scope `metrics`.

        Args:
            limit: of the adapters that were used last; None: the server's own.
        """
        return activity_calls.parse(self._sender.send(activity_calls.activity(limit)))

    def _health(self, within_s: float | None) -> Health:
        try:
            self._sender.send(requests.health(), max_retries=0, within_s=within_s)
        except Unavailable as error:
            return Health(is_ready=False, code=error.code, reason=error.message)
        return Health(is_ready=True, code=None, reason=None)
