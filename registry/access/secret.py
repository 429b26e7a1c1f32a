"""The secret of an API key: made, told apart from other texts, hashed.

    ovt_<id, 16 hex digits>_<43 letters, digits, '-' or '_': 256 random bits>

The id finds the key's record, so no secret is compared with many. A hash without salt or rounds is
enough: nothing of 256 random bits can be tried out.
"""

import hashlib
import hmac
import re
import secrets
from typing import Self

PREFIX = "ovt_"
KEY_ID = re.compile(r"[0-9a-f]{16}")
_SECRET = re.compile(rb"ovt_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NUM_SHOWN = 4
#: Stands for the hash of a key that is not there, so that it is compared with as others are.
DUMMY = secrets.token_bytes(32)


class Secret:
    """What a caller sends as its key. It is in no `repr`, and is compared by its hash alone.

    Args:
        text: the whole of it.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    @classmethod
    def new(cls, id_: str) -> Self:
        """Return a new secret of the key with this id."""
        return cls(f"{PREFIX}{id_}_{secrets.token_urlsafe(32)}")

    @property
    def digest(self) -> str:
        """Return what is stored of it: 64 hex digits."""
        return digest_of(self._text.encode()).hex()

    @property
    def shown(self) -> str:
        """Return its last characters, by which people tell keys apart."""
        return self._text[-_NUM_SHOWN:]

    def reveal(self) -> str:
        """Return the text: for the one answer in which its owner sees it."""
        return self._text


def new_id() -> str:
    """Return the id of a new key."""
    return secrets.token_hex(8)


def id_in(sent: bytes) -> str | None:
    """Return the id of the key that was sent; None where it has not the shape of one."""
    found = _SECRET.fullmatch(sent)
    return found[1].decode() if found else None


def digest_of(sent: bytes) -> bytes:
    """Return the hash of what was sent as a key."""
    return hashlib.sha256(sent).digest()


def is_same(digest: bytes, other: bytes) -> bool:
    """Compare two hashes, in constant time."""
    return hmac.compare_digest(digest, other)
