"""What answers a request: the base, or one version of an adapter, found by `model`."""

from dataclasses import dataclass

from adapters_core.errors import BaseMismatch
from registry import Record
from registry.common.spaces import OPERATORS, shown_in
from server.service import Service

#: Header of an answer that says what gave it.
HEADER = "X-Overtone-Adapter"


@dataclass(frozen=True)
class Answerer:
    """What answers: the base, or one version of an adapter.

    Args:
        model: as the request names it.
        record: None for the base.
        base_name: the base's name.
        space: of the caller's own adapters' names.
    """

    model: str
    record: Record | None
    base_name: str
    space: str = OPERATORS

    @property
    def digest(self) -> str | None:
        """Return the adapter's digest; None for the base."""
        return self.record.digest if self.record else None

    @property
    def adapter(self) -> str:
        """Return the adapter's name as it is stored; empty for the base."""
        return self.record.name if self.record else ""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of its answers."""
        if self.record is None:
            return {HEADER: self.base_name}
        return naming(self.record, self.space)

    def body(self, mode: str | None) -> dict[str, object]:
        """Return the `overtone` object of an answer."""
        record = self.record
        return {
            "adapter": record and shown_in(self.space, record.name),
            "version": record and record.version,
            "digest": record and record.digest,
            "mode": mode or "base",
        }


def naming(record: Record, space: str) -> dict[str, str]:
    """Return the headers of what a version of an adapter gives to a caller with these names."""
    return {HEADER: f"{_reference(record, space)} {record.digest}"}


def _reference(record: Record, space: str) -> str:
    return f"{shown_in(space, record.name)}@{record.version}"


def resolve(service: Service, model: str, space: str) -> Answerer:
    """Return what `model` names; later steps use its digest only.

    Args:
        service: that answers.
        model: as the request names it.
        space: of the caller's own adapters' names.

    Raises:
        AdapterNotFound: neither the base nor an adapter that the caller may use has this name.
        RegistryUnavailable: the name is not known here and the registry cannot be asked.
    """
    base = service.base.spec
    if model == base.name:
        return Answerer(model, None, base.name, space)
    record = service.registry.adapters_of(space).resolve(model)
    registered = record.description
    if registered.base_fingerprint != base.fingerprint:
        raise BaseMismatch(
            f"{_reference(record, space)} was registered for base {registered.base_name!r}; this "
            f"server's is {base.name!r}",
            "model",
        )
    return Answerer(model, record, base.name, space)
