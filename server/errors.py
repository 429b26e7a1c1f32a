"""What can go wrong with a request, and the one table from error class to HTTP status.

ServingError                 the root of the server's own errors
├── InvalidRequest           the request is malformed
│   ├── UnsupportedParameter a parameter this server does not have
│   └── PromptTooLong        prompt and max_tokens exceed what the base or the cache can hold
├── NotFound                 no such path
├── MethodNotAllowed         the path has no such method
├── ForbiddenOrigin          a server without keys is asked by a page of another site
├── UnsupportedMediaType     the body's declared type is not the one that the path takes
├── InvalidApiKey            the key is missing, wrong, revoked or expired
├── InsufficientScope        the key is valid, and not for this
├── PayloadTooLarge          the body is over the cap
│   └── HeadTooLarge         the request's head is over the cap
├── RequestTimeout           the request comes too slowly
├── Overloaded               the queue is full; try again later
│   └── RateLimited          the tenant has asked as much as it may for now
├── DeadlineExceeded         the request's own time is over
├── AdapterTooLarge          the adapter does not fit its cache at all
│   └── PinLimit             pins would leave too little of a cache for other adapters
├── OutOfMemory              there was no memory for the request just now
├── StorageFull              the server's disk has no room for what is to be written
├── NotReady                 the server is starting, or the canary failed
├── Draining                 the server is going down
└── InternalError            a fault of the server; the answer shows no internals
"""

from typing import ClassVar

from adapters_core import errors as adapter
from registry import errors as registry


class ServingError(Exception):
    """Any fault of serving a request. `param` names the request's field at fault, if one is."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class InvalidRequest(ServingError):
    """A field is missing, of the wrong type or out of range."""

    code = "invalid_request"


class UnsupportedParameter(InvalidRequest):
    """A parameter that this server does not have, with a value that would change the answer."""

    code = "unsupported_parameter"


class PromptTooLong(InvalidRequest):
    """The prompt and the tokens asked for do not fit; the message gives both and the limit."""

    code = "context_length_exceeded"


class NotFound(ServingError):
    """There is nothing at this path."""

    code = "not_found"


class MethodNotAllowed(ServingError):
    """The path does not take this method."""

    code = "invalid_request"


class ForbiddenOrigin(ServingError):
    """The request's Host or Origin is none that a server without API keys answers."""

    code = "forbidden_origin"


class UnsupportedMediaType(ServingError):
    """The body's Content-Type is not the one that the path takes."""

    code = "unsupported_media_type"


class InvalidApiKey(ServingError):
    """The API key is missing, wrong, revoked or expired."""

    code = "invalid_api_key"


class InsufficientScope(ServingError):
    """The API key has none of the scopes that this needs; the message names both."""

    code = "insufficient_scope"


class PayloadTooLarge(ServingError):
    """The body is larger than the cap."""

    code = "too_large"


class HeadTooLarge(PayloadTooLarge):
    """The request's line and headers are larger than the cap."""


class RequestTimeout(ServingError):
    """The request, or its body, did not come in time."""

    code = "request_timeout"


class Overloaded(ServingError):
    """Too many requests wait; `retry_after_s` says when to try again."""

    code = "overloaded"

    def __init__(self, message: str, param: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(message, param)
        self.retry_after_s = retry_after_s


class RateLimited(Overloaded):
    """The tenant's limit is reached; the message says what is used and what is allowed."""

    code = "rate_limit_exceeded"


class DeadlineExceeded(ServingError):
    """The answer was not complete within the time limit of the request or the server."""

    code = "deadline_exceeded"


class AdapterTooLarge(ServingError):
    """The adapter alone is larger than the memory set aside for adapters."""

    code = "too_large"


class PinLimit(AdapterTooLarge):
    """Pinning one adapter more would leave too little of its cache for all the others."""


class OutOfMemory(ServingError):
    """The device has no memory for the request, though what was not in use has been evicted."""

    code = "out_of_memory"


class StorageFull(ServingError):
    """The server's disk has no room for what is to be written; nothing of it was kept."""

    code = "storage_full"


class NotReady(ServingError):
    """The base is not loaded yet, or this machine failed the canary."""

    code = "not_ready"


class Draining(ServingError):
    """The server finishes open requests and accepts no new ones."""

    code = "draining"


class InternalError(ServingError):
    """An unexpected error; the log has it under the request's id."""


STATUS: dict[type[Exception], int] = {
    InvalidRequest: 400,
    NotFound: 404,
    MethodNotAllowed: 405,
    ForbiddenOrigin: 403,
    UnsupportedMediaType: 415,
    InvalidApiKey: 401,
    InsufficientScope: 403,
    PayloadTooLarge: 413,
    HeadTooLarge: 431,
    RequestTimeout: 408,
    Overloaded: 429,
    DeadlineExceeded: 504,
    AdapterTooLarge: 413,
    OutOfMemory: 503,
    StorageFull: 507,
    NotReady: 503,
    Draining: 503,
    ServingError: 500,
    adapter.InvalidAdapter: 422,
    adapter.BaseMismatch: 409,
    adapter.TooLarge: 413,
    adapter.BasisPending: 503,
    adapter.CanaryFailed: 503,
    adapter.AdapterError: 422,
    registry.AdapterNotFound: 404,
    registry.NameConflict: 409,
    registry.NotOwner: 403,
    registry.AdapterInUse: 409,
    registry.JobNotFound: 404,
    registry.BatchNotFound: 404,
    registry.FileNotFound: 404,
    registry.KeyNotFound: 404,
    registry.KeyConflict: 400,
    registry.JobConflict: 400,
    registry.QuotaExceeded: 403,
    registry.PreconditionFailed: 412,
    registry.InvalidArgument: 400,
    registry.RegistryUnavailable: 503,
    registry.RegistryFull: 507,
    registry.RegistryError: 500,
}

#: The roots of all errors with a code and a message for the caller.
FAMILIES: tuple[type[Exception], ...] = (
    ServingError,
    adapter.AdapterError,
    registry.RegistryError,
)

#: Seconds after which to try again, where the error itself does not know them.
RETRY_AFTER_S: dict[type[Exception], int] = {
    OutOfMemory: 1,
    NotReady: 5,
    Draining: 1,
    registry.RegistryUnavailable: 5,
    adapter.CanaryFailed: 60,
}

#: OpenAI's `type` of an error by status.
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error: that of the nearest class of its family in the table."""
    return status_of_class(type(error))


def status_of_class(cls: type[Exception]) -> int:
    """Return the HTTP status of a class of errors."""
    return next((STATUS[base] for base in cls.__mro__ if base in STATUS), 500)


def headers_of(error: Exception) -> dict[str, str]:
    """Return the headers that an error's answer has beside those of all answers."""
    headers = {}
    seconds = getattr(error, "retry_after_s", None)
    for base in type(error).__mro__:
        seconds = seconds or RETRY_AFTER_S.get(base)
    if seconds:
        headers["retry-after"] = str(seconds)
    if isinstance(error, InvalidApiKey):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, RequestTimeout):
        headers["connection"] = "close"  # where the next request would begin is not known
    return headers


def body_of(error: Exception) -> dict[str, dict[str, str | None]]:
    """Return the error body of docs/api.md; an error of no family tells nothing of the inside."""
    status = status_of(error)
    known = isinstance(error, FAMILIES)
    message = str(error) if known else "internal error; the server's log has it under this request"
    return {
        "error": {
            "message": message,
            "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
            "param": getattr(error, "param", None),
            "code": getattr(error, "code", "internal_error") if known else "internal_error",
        }
    }
