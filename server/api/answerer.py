"""What answers a request: the base, or one version of an adapter, found by `model`."""

from dataclasses import dataclass

from adapters_core.errors import BaseMismatch
from registry import Record
from server.service import Service

#: Header of an answer that says what gave it.
HEADER = "X-Overtone-Adapter"


@dataclass(frozen=True)
class Answerer:
    """What answers: the base, or one version of an adapter."""

    model: str
    record: Record | None
    base_name: str

    @property
    def digest(self) -> str | None:
        """Return the adapter's digest; None for the base."""
        return self.record.digest if self.record else None

    @property
    def adapter(self) -> str:
        """Return the adapter's name; empty for the base."""
        return self.record.name if self.record else ""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers of its answers."""
        return {HEADER: self.base_name} if self.record is None else naming(self.record)

    def body(self, mode: str | None) -> dict[str, object]:
        """Return the `overtone` object of an answer."""
        record = self.record
        return {
            "adapter": record and record.name,
            "version": record and record.version,
            "digest": record and record.digest,
            "mode": mode or "base",
        }


def naming(record: Record) -> dict[str, str]:
    """Return the headers of what a version of an adapter gives."""
    return {HEADER: f"{record.reference} {record.digest}"}


def resolve(service: Service, model: str) -> Answerer:
    """Return what `model` names; later steps use its digest only.

    Raises:
        AdapterNotFound: neither the base nor an adapter has this name.
        RegistryUnavailable: the name is not known here and the registry cannot be asked.
    """
    base = service.base.spec
    if model == base.name:
        return Answerer(model, None, base.name)
    record = service.registry.directory.resolve(model)
    registered = record.description
    if registered.base_fingerprint != base.fingerprint:
        raise BaseMismatch(
            f"{record.reference} was registered for base {registered.base_name!r}; this server's "
            f"is {base.name!r}",
            "model",
        )
    return Answerer(model, record, base.name)
