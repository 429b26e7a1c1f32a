"""How a store is named: a folder, or a prefix in a bucket of S3."""

import re
from dataclasses import dataclass
from pathlib import Path

from registry.errors import InvalidArgument

_S3 = "s3://"
#: As S3 has it for new buckets.
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?!\.{1,2}(/|$))[A-Za-z0-9._-]+(/(?!\.{1,2}(/|$))[A-Za-z0-9._-]+)*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


@dataclass(frozen=True)
class BucketName:
    """Where in S3 a store is.

    Args:
        bucket: its name; the endpoint, region and credentials are the environment's.
        prefix: of all keys of the store, without a slash at its ends; may be empty.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{_S3}{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def store_place(store: str | Path | None, default: Path) -> Path | BucketName:
    """Return where a store is; nothing is connected.

    Args:
        store: a folder, or `s3://BUCKET[/PREFIX]`.
        default: the folder if `store` is not given.

    Raises:
        InvalidArgument: it is an address of another kind, or the bucket cannot be one.
    """
    if store is None:
        return default
    text = str(store)
    if not text.startswith(_S3):
        if _SCHEME.match(text):
            raise InvalidArgument(f"the store {text!r} is neither a folder nor s3://BUCKET/PREFIX")
        return Path(text).expanduser() if text.startswith("~") else Path(text)
    bucket, _, prefix = text.removeprefix(_S3).partition("/")
    prefix = prefix.strip("/")
    if not _BUCKET.fullmatch(bucket) or not (_PREFIX.fullmatch(prefix) or not prefix):
        raise InvalidArgument(
            f"the store {text!r} names no bucket: s3://BUCKET/PREFIX, a bucket of 3 to 63 small "
            "letters, digits, dots and dashes, and a prefix of letters, digits and ._-/"
        )
    return BucketName(bucket, prefix)
