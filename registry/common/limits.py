"""What a tenant may ask of all servers of a registry together, and what it may have there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from registry.errors import InvalidArgument, QuotaExceeded

#: Of any limit.
MAX_LIMIT = 1_000_000_000_000_000
#: What is given of a tenant's limits: those that are missing are the default's.
Given = Mapping[str, int | None]


@dataclass(frozen=True)
class Limits:
    """A tenant's limits; None is no limit, 0 lets nothing through.

    Args:
        requests_per_minute: of inference.
        tokens_per_minute: of prompts and answers.
        running_requests: of inference, that are open at a time.
        adapters: names.
        adapter_bytes: of coefficients, in all versions.
        files: uploaded, and results of batches.
        file_bytes: of them.
        jobs: of training, that have not ended.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    running_requests: int | None = None
    adapters: int | None = None
    adapter_bytes: int | None = None
    files: int | None = None
    file_bytes: int | None = None
    jobs: int | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the limits of `NAME=NUMBER,NAME=NUMBER…`; those that are missing are none.

        Raises:
            InvalidArgument: a name or a number is wrong; the message names it.
        """
        parts = [part.partition("=") for part in text.split(",") if part.strip()]
        given = {name.strip(): value.strip() for name, _, value in parts}
        check(dict.fromkeys(given))
        for name, value in given.items():
            if not (value.isascii() and value.isdecimal()):
                raise InvalidArgument(f"{name} = {value[:40]!r}: write {name}=NUMBER")
        return cls(**check({name: int(value) for name, value in given.items()}))

    @property
    def has_rates(self) -> bool:
        """Whether requests are counted at all."""
        return any(getattr(self, name) is not None for name in RATES)

    def words(self, *names: str) -> list[str]:
        """Return limits as scripts take them: a number, or nothing for none."""
        values = [getattr(self, name) for name in names]
        return ["" if value is None else str(value) for value in values]

    def exceeded(self, name: str, used: int, more: int = 1) -> QuotaExceeded:
        """Return the error of what would be more than a limit of what a tenant has."""
        limit, what = getattr(self, name), WORDS[name]
        return QuotaExceeded(
            f"{used} of {limit} {what} are used, and this needs {more} more: remove what is not "
            "needed, or ask for a higher limit"
        )

    def changed(self, given: Given) -> "Limits":
        """Return these with a tenant's own in their place."""
        return replace(self, **given)

    def named(self) -> dict[str, int | None]:
        """Return them by their names."""
        return asdict(self)


#: Those of rates, in the order of `Amounts`.
RATES = ("requests_per_minute", "tokens_per_minute", "running_requests")
#: Every limit in words, as messages name it.
WORDS = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "running_requests": "running requests",
    "adapters": "adapters",
    "adapter_bytes": "bytes of adapters",
    "files": "files",
    "file_bytes": "bytes of files",
    "jobs": "training jobs that have not ended",
}
NAMES = tuple(field.name for field in fields(Limits))
UNLIMITED = Limits()


def check(given: Mapping[str, Any]) -> dict[str, int | None]:
    """Return limits by name, checked.

    Raises:
        InvalidArgument: there is no such limit, or a number is out of range.
    """
    for name, value in given.items():
        if name not in NAMES:
            raise InvalidArgument(f"no limit is called {name[:80]!r}: {', '.join(NAMES)}")
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= MAX_LIMIT):
            raise InvalidArgument(f"{name} = {value!r}: 0 to {MAX_LIMIT}, or null for no limit")
    return dict(given)


def account_of(tenant: str) -> str:
    """Return the tenant that limits count for: a gateway's callers share their gateway's."""
    return tenant.partition("/")[0]
