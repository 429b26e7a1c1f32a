"""What can go wrong between a program and an Overtone server.

OvertoneError                    the root: catch this to catch all of them
├── APIError                     the server answered with an error
│   ├── InvalidRequest           400  the request is malformed
│   │   ├── UnsupportedParameter      a parameter this server does not have
│   │   └── ContextLengthExceeded     prompt and answer do not fit the base's context
│   ├── InvalidApiKey            401  no key, or a wrong one
│   ├── InsufficientScope        403  the key may not do this
│   ├── QuotaExceeded            403  the tenant has as much as it may
│   ├── NotOwner                 403  the adapter is another tenant's, which may be used only
│   ├── ForbiddenOrigin          403  a server without keys is not to be called by this name or page
│   ├── NotFound                 404  nothing has this name
│   │   └── ModelNotFound             no base or adapter of this name, or not for this caller
│   ├── Conflict                 409  the request and the server's state exclude each other
│   │   ├── BaseMismatch              the adapter was made for another base
│   │   ├── NameConflict              the name is taken
│   │   └── AdapterInUse              something still needs the adapter
│   ├── RequestTimeout           408  the request came too slowly
│   ├── PreconditionFailed       412  another caller moved it first
│   ├── TooLarge                 413  over the server's limit
│   ├── UnsupportedMediaType     415  the body's declared type is not the one that the path takes
│   ├── InvalidAdapter           422  file or config is not what this base needs
│   │   ├── UnknownMethod             the server has no such method
│   │   ├── UnusedTensors             tensors that match nothing in the base
│   │   ├── NoEffect                  every coefficient is zero
│   │   └── NonFinite                 a coefficient is NaN or infinite
│   ├── Overloaded               429  too much at once; `retry_after` says when to try again
│   │   └── RateLimited               the tenant's limit is reached
│   ├── InternalError            500  the server's own fault; `request_id` finds it in its log
│   ├── Unavailable              503  the server cannot serve just now
│   │   ├── RegistryUnavailable       its registry does not answer
│   │   ├── OutOfMemory               its device has no memory for the request
│   │   ├── Draining                  it is shutting down
│   │   └── NotReady                  it is still starting
│   ├── DeadlineExceeded         504  no end within the time the request has
│   └── StorageFull              507  the server's disk has no room
├── ConnectionFailed             no connection to the server
│   └── ConnectionLost           the connection broke before the answer was complete
├── Timeout                      the server did not answer in time
├── InvalidResponse              the answer is not an Overtone server's
├── JobFailed                    the job that was waited for has made nothing
└── InvalidArgument              the call cannot be sent at all; nothing was sent
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from .training_types import JobFacts


class OvertoneError(Exception):
    """Any failure of this client. `code` is a stable string, `message` is for people."""

    code: str = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class APIError(OvertoneError):
    """The server answered with an error.

    Raised itself only when neither the code nor the status is a known one.

    Args:
        message: what the server said.
        status: the HTTP status; for an error in mid stream the status its code stands for.
        code: the server's stable code, also when this client does not know it.
        param: the request's field or the adapter's tensor at fault, if one is.
        request_id: the `X-Request-Id` under which the server logged the request.
        retry_after: seconds after which to try again, when the server said so.
    """

    code = "api_error"
    status: int = 0

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = self.status if status is None else status
        self.code = code or self.code
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after


class InvalidRequest(APIError):
    """The request is malformed; `param` names the field."""

    code, status = "invalid_request", 400


class UnsupportedParameter(InvalidRequest):
    """The server does not have the parameter `param`; it never ignores one."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """Prompt and answer together are longer than the base's context."""

    code = "context_length_exceeded"


class InvalidApiKey(APIError):
    """The server wants an API key and got none, or one that is wrong, revoked or expired."""

    code, status = "invalid_api_key", 401


class QuotaExceeded(APIError):
    """The tenant has as much as its limit allows; the message says how much, and of what."""

    code, status = "quota_exceeded", 403


class ForbiddenOrigin(APIError):
    """A server without API keys answers no other names than its own, and no other site's pages."""

    code, status = "forbidden_origin", 403


class InsufficientScope(APIError):
    """The API key is good, but not for this."""

    code, status = "insufficient_scope", 403


class NotOwner(APIError):
    """The adapter is shared by another tenant, or the operators': only its owner changes it."""

    code, status = "not_owner", 403


class NotFound(APIError):
    """Nothing has this name, version or path."""

    code, status = "not_found", 404


class ModelNotFound(NotFound):
    """No base or adapter of this name, or none this caller may see."""

    code = "model_not_found"


class Conflict(APIError):
    """The request contradicts the server's state; its subclasses say how."""

    code, status = "conflict", 409


class BaseMismatch(Conflict):
    """The file carries the fingerprint of another base."""

    code = "base_mismatch"


class NameConflict(Conflict):
    """The name belongs to something else."""

    code = "name_conflict"


class AdapterInUse(Conflict):
    """A pin, an alias or a job still needs the adapter."""

    code = "adapter_in_use"


class RequestTimeout(APIError):
    """The request, or its body, came too slowly: the server did not wait for its end."""

    code, status = "request_timeout", 408


class PreconditionFailed(APIError):
    """`if_match` did not match: another caller moved the alias first."""

    code, status = "precondition_failed", 412


class TooLarge(APIError):
    """Over the server's limit; the message gives the value and the limit."""

    code, status = "too_large", 413


class UnsupportedMediaType(APIError):
    """The body's Content-Type is not the one that the path takes."""

    code, status = "unsupported_media_type", 415


class InvalidAdapter(APIError):
    """A tensor or a field of the config is not what this base needs; `param` names it."""

    code, status = "invalid_adapter", 422


class UnknownMethod(InvalidAdapter):
    """The server has no such method; the message lists those it has."""

    code = "unknown_method"


class UnusedTensors(InvalidAdapter):
    """The file holds tensors that match no module of the base."""

    code = "unused_tensors"


class NoEffect(InvalidAdapter):
    """The adapter changes nothing: the base would answer under its name."""

    code = "no_effect"


class NonFinite(InvalidAdapter):
    """A tensor holds NaN or infinity; `param` names it."""

    code = "non_finite"


class Overloaded(APIError):
    """Too much at once; try again after `retry_after` seconds."""

    code, status = "overloaded", 429


class RateLimited(Overloaded):
    """The tenant's limit is reached; the message says what is used and what is allowed."""

    code = "rate_limit_exceeded"


class DeadlineExceeded(APIError):
    """The answer had no end within the time that the request or the server gives it."""

    code, status = "deadline_exceeded", 504


class StorageFull(APIError):
    """The server's disk has no room for the upload; nothing of it was kept."""

    code, status = "storage_full", 507


class InternalError(APIError):
    """A fault of the server; its log has the reason under `request_id`."""

    code, status = "internal_error", 500


class Unavailable(APIError):
    """The server, or a proxy before it, cannot serve just now."""

    code, status = "unavailable", 503


class RegistryUnavailable(Unavailable):
    """The server's registry does not answer."""

    code = "registry_unavailable"


class OutOfMemory(Unavailable):
    """The server's device has no memory for the request just now."""

    code = "out_of_memory"


class Draining(Unavailable):
    """The server is shutting down and takes no new requests."""

    code = "draining"


class NotReady(Unavailable):
    """The server is still starting; the message says what it waits for."""

    code = "not_ready"


class ConnectionFailed(OvertoneError):
    """No connection to the server: the request was not done."""

    code = "connection_failed"
    text: ClassVar[str] = (
        "cannot reach {url} ({detail}). Is the server running? "
        "Start one with `overtone serve` or `overtone demo`"
    )


class ConnectionLost(ConnectionFailed):
    """The connection broke before the answer was complete: the request may have been done."""

    code = "connection_lost"
    text = "the connection to {url} broke before the answer was complete ({detail})"


class Timeout(OvertoneError):
    """The server did not answer in time: the request may still be running."""

    code = "timeout"
    text: ClassVar[str] = "{url} did not answer in time ({detail})"


class InvalidResponse(OvertoneError):
    """The answer cannot be understood: most likely the URL is not an Overtone server's."""

    code = "invalid_response"
    text: ClassVar[str] = (
        "the answer of {url} cannot be read ({detail}). Is this an Overtone server?"
    )


class JobFailed(OvertoneError):
    """The job that was waited for has failed or was cancelled; `code` is the job's own.

    Args:
        message: what happened to it.
        code: why.
        job: as it stands; None where it is not at hand.
    """

    code = "job_failed"

    def __init__(self, message: str, code: str | None = None, job: "JobFacts | None" = None):
        super().__init__(message)
        self.code, self.job = code or self.code, job

    @classmethod
    def of(cls, job: "JobFacts") -> Self:
        """The error of a job that is over and has not succeeded."""
        if job.error is None:
            return cls(f"{job.id} was {job.status}", job.status, job)
        return cls(f"{job.id}: {job.error.message}", job.error.code, job)


class InvalidArgument(OvertoneError, ValueError):
    """The call cannot be sent: an empty name, a missing file, a bad URL. Nothing was sent."""

    code = "invalid_argument"
    text: ClassVar[str] = "the request to {url} cannot be sent ({detail})"


#: What passes by itself where something is looked at again and again.
PASSING = (ConnectionFailed, Timeout, Unavailable, Overloaded)


def api_error_class(code: str | None, status: int) -> type[APIError]:
    """The class of a server's error: by its code, else by its status, else `APIError`."""
    classes = list(_subclasses(APIError))
    by_code = {cls.code: cls for cls in classes}
    by_status = {cls.status: cls for cls in classes if "status" in vars(cls)}
    by_status |= {502: Unavailable, 504: Unavailable}  # a proxy speaks for a server that is away
    return by_code.get(code or "") or by_status.get(status, APIError)


def _subclasses(cls: type[APIError]) -> Iterator[type[APIError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
