"""Adapters as the API shows them to a caller."""

from registry import AdapterEntry, Record
from registry.common.spaces import OPERATORS, shown_in, space_of
from server.api.bodies.adapters import Adapter
from server.api.callers import Caller
from server.service import Service


def adapter_object(
    service: Service, caller: Caller, record: Record, entry: AdapterEntry
) -> Adapter:
    """Return one version of an adapter.

    Others than its owner see what they need to use it: not how it was made, nor with which other
    tenants it is shared. What is in memory is known to operators alone: to others it would tell
    that another tenant has the same bytes.
    """
    owner, description = space_of(record.name), record.description
    is_own = owner == caller.space
    return {
        "object": "adapter",
        "name": shown_in(caller.space, record.name),
        "version": record.version,
        "digest": record.digest,
        "method": description.method,
        "method_config": description.method_config,
        "base": {
            "name": description.base_name,
            "fingerprint": description.base_fingerprint,
            "verified": description.base_verified,
        },
        "target_modules": list(description.target_modules),
        "num_coefficients": description.num_coefficients,
        "size_bytes": description.size_bytes,
        "created_at": record.created_at,
        "created_by": record.created_by if is_own else "",
        "aliases": entry.aliases,
        "metadata": record.metadata if is_own else {},
        "metrics": record.metrics,
        "owner": owner,
        "shared": owner == OPERATORS or entry.sharing.everyone,
        "shared_with": list(entry.sharing.tenants) if is_own else [],
        "residency": service.loader.memory.modes_of(record.digest) if caller.is_operator else [],
    }
