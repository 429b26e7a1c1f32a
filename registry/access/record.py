"""What the registry knows of one API key, and whether what was sent is its secret."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from registry.access.secret import DUMMY, KEY_ID, is_same
from registry.errors import CorruptRecord, InvalidArgument, KeyNotFound
from registry.redis import keys

Scope = Literal["infer", "upload", "train", "metrics", "admin"]
#: All scopes; a key with the last one has the others, too.
SCOPES: tuple[Scope, ...] = get_args(Scope)
ADMIN: Scope = "admin"

#: A tenant that a key may stand for.
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
MAX_LABEL_CHARS = 100
MAX_LIFE_S = 10 * 366 * 86_400
MAX_GRACE_S = 30 * 86_400
_TIMES = ("expires_at", "revoked_at", "rotated_at", "old_until")
_DIGESTS = ("digest", "old_digest")


@dataclass(frozen=True)
class NewKey:
    """A key to be made; checked.

    Args:
        tenant: that it stands for.
        scopes: what it may do, without those that stand twice, in the order of `SCOPES`.
        label: for people.
        expires_in_s: its life; None is for ever.

    Raises:
        InvalidArgument: a value breaks a rule; the message names it.
    """

    tenant: str
    scopes: tuple[Scope, ...]
    label: str = ""
    expires_in_s: float | None = None

    def __post_init__(self) -> None:
        if not TENANT.fullmatch(self.tenant):
            raise InvalidArgument(
                f"tenant {ascii(self.tenant[:80])} is not 1 to 64 letters, digits, '.', '_', '@' "
                "or '-', beginning with a letter or digit"
            )
        object.__setattr__(self, "scopes", checked_scopes(self.scopes))
        if len(self.label) > MAX_LABEL_CHARS or not self.label.isprintable():
            raise InvalidArgument(f"label is not up to {MAX_LABEL_CHARS} printable characters")
        if self.expires_in_s is not None and not 0 < self.expires_in_s <= MAX_LIFE_S:
            raise InvalidArgument(f"a key's life is over 0 and up to {MAX_LIFE_S} seconds")


@dataclass(frozen=True)
class KeyRecord:
    """One API key as it stands.

    Args:
        id: 16 hex digits, a part of its secret.
        tenant: that it stands for.
        scopes: what it may do.
        label: for people.
        created_at: seconds since 1970.
        shown: the last characters of its secret.
        expires_at, revoked_at, rotated_at: seconds since 1970, if ever.
        old_until: until when the secret before the last rotation is valid, too.
        digest, old_digest: hashes of the two secrets; None for one that is valid no more.
    """

    id: str
    tenant: str
    scopes: tuple[Scope, ...]
    label: str
    created_at: float
    shown: str
    expires_at: float | None = None
    revoked_at: float | None = None
    rotated_at: float | None = None
    old_until: float | None = None
    digest: bytes | None = field(default=None, repr=False)
    old_digest: bytes | None = field(default=None, repr=False)

    @classmethod
    def read(cls, id_: str, stored: Mapping[bytes, bytes]) -> Self:
        """Read a key's hash; scopes and fields that a later program added are ignored.

        Raises:
            CorruptRecord: a field is missing or not what this program writes.
        """
        try:
            text = {name.decode(): value.decode() for name, value in stored.items()}
            given: dict[str, Any] = {name: float(text[name]) for name in _TIMES if name in text}
            given |= {name: bytes.fromhex(text[name]) for name in _DIGESTS if name in text}
            return cls(
                id=id_,
                tenant=text["tenant"],
                scopes=tuple(each for each in SCOPES if each in text["scopes"].split(",")),
                label=text["label"],
                created_at=float(text["created_at"]),
                shown=text["shown"],
                **given,
            )
        except (KeyError, ValueError) as error:
            raise CorruptRecord(f"{keys.api_key(id_)} is not an API key's record") from error

    def is_expired(self, now: float) -> bool:
        """Return whether its life is over."""
        return self.expires_at is not None and self.expires_at <= now


def is_secret_of(record: KeyRecord | None, digest: bytes, now: float) -> bool:
    """Return whether the hash of what was sent is that of a key's secret; in constant time.

    A key that is not there, or was revoked, is compared with as others are, and has none.
    """
    newest = (record and record.digest) or DUMMY
    before = (record and record.old_digest) or DUMMY
    fits, fitted = is_same(digest, newest), is_same(digest, before)
    if record is None or record.revoked_at is not None:
        return False
    return fits or (fitted and now < (record.old_until or 0.0))


def checked_scopes(given: Iterable[str]) -> tuple[Scope, ...]:
    """Return scopes without those that stand twice, in their order.

    Raises:
        InvalidArgument: there is none, or one that is not known.
    """
    wanted = set(given)
    unknown = sorted(wanted - set(SCOPES))
    if unknown or not wanted:
        said = f"unknown scope {ascii(unknown[0][:40])}" if unknown else "a key without scopes"
        raise InvalidArgument(f"{said}: there are {', '.join(SCOPES)}")
    return tuple(each for each in SCOPES if each in wanted)


def check_key_id(id_: str) -> str:
    """Return `id_` unchanged.

    Raises:
        KeyNotFound: no key can have it.
    """
    if not KEY_ID.fullmatch(id_):
        raise KeyNotFound(f"no API key {ascii(id_[:60])}: an id is 16 hex digits")
    return id_
