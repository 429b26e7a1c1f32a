# Made of _async/keys.py by `./run reference`: change that file.
"""API keys over REST."""

from collections.abc import Iterator, Sequence

from .. import _key_calls as calls
from .._requests import Call, walk
from ..key_types import ApiKey
from .sender import Sender


class Keys:
    """The keys of a server's callers, for a client whose own key has the scope `admin`.

    Every method raises `OvertoneError`s only.
    """

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def create(
        self,
        tenant: str,
        scopes: Sequence[str],
        *,
        label: str | None = None,
        expires_in_s: float | None = None,
    ) -> ApiKey:
        """Make a key; look at `secret` of what comes back, since it is never shown again.

        Args:
            tenant: owns what is made with the key.
            scopes: what it may do: `infer`, `upload`, `train`, `metrics`, `admin`.
            label: for people.
            expires_in_s: seconds from now on; None: for ever.
        """
        call = calls.create(tenant, scopes, label, expires_in_s)
        return calls.parse_with_secret(self._sender.send(call))

    def list(self, *, limit: int | None = None, tenant: str | None = None) -> Iterator[ApiKey]:
        """The keys, the newest first, with those that ended lately; fetched page by page.

        Args:
            limit: at most so many; None: every one.
            tenant: only this tenant's.
        """
        return self._sender.walk(walk(calls.KEYS, limit, tenant=tenant), calls.to_key)

    def get(self, id: str) -> ApiKey:
        """One key as it stands, without its secret."""
        return calls.parse(self._sender.send(Call("GET", calls.path(id))))

    def rotate(self, id: str, *, grace_s: float = 0) -> ApiKey:
        """Give a key a new secret, valid at once and never shown again.

        Args:
            id: the key's.
            grace_s: seconds for which the old secret stays valid.
        """
        return calls.parse_with_secret(self._sender.send(calls.rotate(id, grace_s)))

    def revoke(self, id: str) -> ApiKey:
        """End a key for good, on all servers within a second. Safe to call twice."""
        return calls.parse(self._sender.send(Call("DELETE", calls.path(id))))
