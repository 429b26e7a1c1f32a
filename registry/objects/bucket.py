"""One store's objects in a bucket of S3, and what its faults mean in words.

obstore signs, repeats and reads the standard variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, AWS_VIRTUAL_HOSTED_STYLE_REQUEST (else the bucket
is in the path), and a machine's or pod's own role. An object that was put is durable, and every
later read sees it.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from registry.errors import RegistryUnusable, StoreUnavailable
from registry.objects.place import BucketName

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

log = logging.getLogger(__name__)

CONNECT_S, REQUEST_S = 2, 60
#: A request that failed is sent again up to so often, and for so long.
RETRIES, RETRY_S = 4, 10
_CLIENT: "ClientConfig" = {
    "allow_http": True,  # for an endpoint that is named with http://
    "connect_timeout": timedelta(seconds=CONNECT_S),
    "timeout": timedelta(seconds=REQUEST_S),
}
_RETRY: "RetryConfig" = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)}


@dataclass(frozen=True)
class Found:
    """An object that is there.

    Args:
        key: below the store's prefix.
        size_bytes: of its content.
        changed_at: when it was last put, in seconds since 1970 by S3's clock.
    """

    key: str
    size_bytes: int
    changed_at: float


class Bucket:
    """The objects below a store's prefix; safe to use from many threads.

    Args:
        name: of the bucket, and the prefix.

    Raises:
        RegistryUnusable: the package obstore is not installed, or a variable cannot be used.
    """

    def __init__(self, name: BucketName) -> None:
        self.name = name
        try:
            import obstore
            from obstore.store import S3Store
        except ImportError as error:
            raise RegistryUnusable(
                f"the store {name} needs the package obstore: pip install 'overtone[s3]'", False
            ) from error
        _check_endpoint(name)
        self._api = obstore
        self._faults = (obstore.exceptions.BaseError, OSError, ValueError)
        with self._asking("open"):
            self._store = S3Store(
                name.bucket,
                prefix=name.prefix or None,
                client_options=_CLIENT,
                retry_config=_RETRY,
            )

    def check(self) -> None:
        """Make sure that the bucket is there and answers.

        Raises:
            RegistryUnusable: it does not; the message says why.
        """
        try:
            next(self.list(""), None)
        except StoreUnavailable as error:
            reason, may_pass = _reason_of(error.__cause__)
            raise RegistryUnusable(
                f"the store {self.name} cannot be used: {reason}", may_pass
            ) from error

    def put(self, key: str, data: bytes) -> None:
        """Store an object, whole or not at all; it is durable afterwards.

        Raises:
            StoreUnavailable: S3 does not answer, or refuses.
        """
        with self._asking("put"):
            self._api.put(self._store, key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Store an object unless there is one of its key; return whether there was none."""
        with self._asking("create"):
            try:
                self._api.put(self._store, key, data, mode="create")
            except self._api.exceptions.AlreadyExistsError:
                return False
        return True

    def get(self, key: str) -> bytes | None:
        """Return an object's content; None if it is not there."""
        with self._asking("get"):
            try:
                return bytes(self._api.get(self._store, key).bytes())
            except FileNotFoundError as error:
                _refuse_without_bucket(error)
                return None

    def head(self, key: str) -> Found | None:
        """Return what is known of an object; None if it is not there."""
        with self._asking("head"):
            try:
                return _found(self._api.head(self._store, key))
            except FileNotFoundError:
                return None

    def delete(self, key: str) -> None:
        """Delete an object. Safe to call twice."""
        with self._asking("delete"):
            try:
                self._api.delete(self._store, key)
            except FileNotFoundError as error:
                _refuse_without_bucket(error)

    def list(self, prefix: str) -> Iterator[Found]:
        """Yield all objects below a prefix that ends with a slash, or all, in the order of keys."""
        with self._asking("list"):
            for page in self._api.list(self._store, prefix or None):
                yield from map(_found, page)

    @contextmanager
    def _asking(self, op: str) -> Iterator[None]:
        try:
            yield
        except self._faults as error:
            reason, _ = _reason_of(error)
            words = str(error).partition("\n")[0]
            log.warning("the store %s: %s failed: %s (%s)", self.name, op, reason, words)
            raise StoreUnavailable(
                "the store of adapters' files does not answer or refuses; try again shortly"
            ) from error


def _check_endpoint(name: BucketName) -> None:
    """Refuse what is no URL, for which obstore ends its thread; it reads the variables itself."""
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"):
        given = os.environ.get(variable, "")
        if given and not re.fullmatch(r"https?://[\w.:\[\]-]+(/\S*)?", given):
            raise RegistryUnusable(
                f"the store {name} cannot be used: {variable} is no http:// or https:// URL", False
            )


def _found(meta: Any) -> Found:
    return Found(meta["path"], meta["size"], meta["last_modified"].timestamp())


def _refuse_without_bucket(error: FileNotFoundError) -> None:
    """Raise a fault that says the bucket is not there, which is no missing object."""
    if _NO_BUCKET in str(error):
        raise error


_NO_BUCKET = "NoSuchBucket"
_CREDENTIALS = (
    "S3 refuses its credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and "
    "AWS_SESSION_TOKEN), or give this machine a role"
)
#: A part of a fault's text -> what it means, and whether asking again may help. The first counts.
_REASONS = (
    (_NO_BUCKET, "there is no such bucket at this endpoint: make it, or correct the name", False),
    (
        "169.254.169.254",
        "no credentials are set: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role of this "
        "machine or pod",
        False,
    ),
    ("InvalidAccessKeyId", _CREDENTIALS, False),
    ("SignatureDoesNotMatch", _CREDENTIALS, False),
    ("ExpiredToken", _CREDENTIALS, False),
    ("AuthorizationHeaderMalformed", "it is in another region: set AWS_REGION", False),
    ("PermanentRedirect", "it is in another region: set AWS_REGION", False),
    ("redirect without LOCATION", "it is in another region: set AWS_REGION", False),
    ("AccessDenied", "the credentials may not list, read, write and delete below it", False),
    ("Forbidden", "the credentials may not list, read, write and delete below it", False),
    # Not the number alone: a port or a time may hold it.
    ("status code: 403", _CREDENTIALS, False),
    ("status code: 401", _CREDENTIALS, False),
    ("dns error", "the endpoint's name cannot be resolved: see AWS_ENDPOINT_URL", True),
    ("onnection refused", "nothing listens at the endpoint: see AWS_ENDPOINT_URL", True),
    ("error sending request", "the endpoint cannot be reached: see AWS_ENDPOINT_URL", True),
    ("timed out", "the endpoint does not answer in time: see AWS_ENDPOINT_URL", True),
)


def _reason_of(error: BaseException | None) -> tuple[str, bool]:
    """Return what a fault means, and whether it may pass by itself."""
    text = f"{error} {error!r}"
    for part, reason, may_pass in _REASONS:
        if part in text:
            return reason, may_pass
    return "it does not answer as S3 does; the log has its words", True
