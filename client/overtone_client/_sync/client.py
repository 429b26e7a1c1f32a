# Made of _async/client.py by `./run reference`: change that file.
"""The client: its connections, and every call under one name."""

from types import TracebackType
from typing import Self

import httpx2

from .._connection import DEFAULT_TIMEOUT, DEFAULT_URL, TimeoutTypes, options
from .._retries import MAX_RETRIES
from ..errors import InvalidArgument
from .adapters import AdapterCalls
from .answers import AnswerCalls
from .batches import Batches
from .encodings import EncodingCalls
from .keys import Keys
from .sender import Sender
from .state import StateCalls
from .tenants import Tenants
from .training import Training


class Client(AdapterCalls, AnswerCalls, EncodingCalls, StateCalls):
    """A connection pool to one Overtone server; close it, or use it by `with`.

    May be used by several callers at once. Every method raises `OvertoneError`s only (errors.py).
    What is about training stands under `training`: `client.training.jobs()`; about batches of
    requests under `batches`, about API keys under `keys`, about limits and usage under `tenants`.

    Args:
        base_url: the server's root, with or without `/v1`.
        api_key: sent as a bearer token.
        timeout: seconds for each of connecting, reading and writing, or an `httpx2.Timeout`;
            None waits forever.
        transport: instead of the network, for tests.
        acting_for: the tenant that an operator's requests are for: its names and things.
        max_retries: of a call that the server answers by 429 or 503, after pauses that grow or as
            long as the server asks for; what could be done twice by it is not sent again.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        timeout: TimeoutTypes = DEFAULT_TIMEOUT,
        transport: httpx2.BaseTransport | None = None,
        acting_for: str | None = None,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        if max_retries < 0:
            raise InvalidArgument(f"max_retries must be at least 0, not {max_retries}")
        given = options(base_url, api_key, timeout, acting_for)
        self._http = httpx2.Client(**given, transport=transport)
        self._sender = Sender(self._http, max_retries)
        self.training = Training(self._sender)
        self.batches = Batches(self._sender)
        self.keys = Keys(self._sender)
        self.tenants = Tenants(self._sender)

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._http.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the pool; the client cannot be used afterwards. Safe to call twice."""
        self._http.close()
