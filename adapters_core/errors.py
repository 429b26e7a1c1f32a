"""What can be wrong with an adapter.

AdapterError                 the root: catch this to catch all of them
├── InvalidAdapter           a file or its config is not what this base needs
│   ├── UnknownMethod        the config names a method this build does not have
│   ├── UnusedTensors        the file holds tensors that match nothing in the base
│   ├── NonFinite            a coefficient is NaN or infinite
│   └── NoEffect             every coefficient that could change the base is zero
├── BaseMismatch             the file was made for another base
├── TooLarge                 over a cap on bytes, tensors or coefficients
├── BasisPending             what the adapter needs is still computed from the base's weights
└── CanaryFailed             this machine computes a transform wrongly, on every route
"""

from typing import ClassVar

#: Messages and names come from uploaded files; a reply carries no more of them than this.
MAX_MESSAGE_CHARS = 4000


class AdapterError(Exception):
    """Any fault of an adapter; `param` names the tensor or config field at fault, if one is."""

    code: ClassVar[str] = "invalid_adapter"

    def __init__(self, message: str, param: str | None = None) -> None:
        self.message = _showable(message)
        self.param = None if param is None else _showable(param)
        super().__init__(self.message)


def _showable(text: str) -> str:
    """Return text that any reply can carry: bounded, and without the lone surrogates of JSON."""
    if len(text) > MAX_MESSAGE_CHARS:
        text = text[: MAX_MESSAGE_CHARS - 1] + "…"
    return text.encode("utf-8", "backslashreplace").decode()


class InvalidAdapter(AdapterError):
    """A header, tensor, shape or config field is missing, malformed or not supported."""


class UnknownMethod(InvalidAdapter):
    """The config names a method that is not registered; the message lists those that are."""

    code = "unknown_method"


class UnusedTensors(InvalidAdapter):
    """Tensors that match no module of the base: they would be ignored without a word."""

    code = "unused_tensors"


class NonFinite(InvalidAdapter):
    """A tensor holds NaN or infinity."""

    code = "non_finite"


class NoEffect(InvalidAdapter):
    """The update is zero everywhere, so the base would answer under the adapter's name."""

    code = "no_effect"


class BaseMismatch(AdapterError):
    """The file carries the fingerprint of another base, or its shapes fit another one."""

    code = "base_mismatch"


class TooLarge(AdapterError):
    """Over a cap; the message gives the value and the cap."""

    code = "too_large"


class BasisPending(AdapterError):
    """A basis is being computed from the base's weights; `retry_after_s` says when to try again."""

    code = "not_ready"

    def __init__(self, message: str, param: str | None = None, retry_after_s: int = 5) -> None:
        super().__init__(message, param)
        self.retry_after_s = retry_after_s


class CanaryFailed(AdapterError):
    """A transform disagrees with its direct sum on every route this machine offers."""

    code = "not_ready"
