"""Whether a store and a registry belong together, and the message where they do not. Pure."""

from dataclasses import dataclass

from registry.store.mark import StoreMark


@dataclass(frozen=True)
class Identity:
    """A registry's id, and the id of its store."""

    id: str
    store: str


@dataclass(frozen=True)
class Standing:
    """How a store and a registry stand to each other.

    Args:
        mark: of the store; None if it has none.
        identity: of the registry; None if it has none.
        store_is_empty: it holds no blob, no file and no job's folder.
        registry_is_empty: it never had an adapter, and has no file and no job.
        num_looked_for: of a store without an owner: how many blobs and files that the registry
            names were looked for in it.
        num_missing: how many of these are not there.
    """

    mark: StoreMark | None
    identity: Identity | None
    store_is_empty: bool
    registry_is_empty: bool
    num_looked_for: int = 0
    num_missing: int = 0

    @property
    def is_settled(self) -> bool:
        """Return whether each names the other."""
        mark, identity = self.mark, self.identity
        if mark is None or identity is None:
            return False
        return (mark.registry, mark.store) == (identity.id, identity.store)


def fault_of(given: Standing) -> str | None:
    """Return why this registry must not use this store, or None if it may.

    A store has no owner at its first use, or if it was made before stores had marks: it then goes
    to the registry if every blob and file that the registry names is in it.
    """
    mark, identity = given.mark, given.identity
    if mark is not None and mark.registry is not None:
        return None if given.is_settled else _fault_of_owned(given, mark)
    if identity is not None and (mark is None or mark.store != identity.store):
        return (
            f"the registry belongs to the store {short(identity.store)}, which this folder is not: "
            "another folder, or its file store.json was lost"
        )
    if given.num_missing:
        return (
            f"the registry names adapters and files that are not in the store: {given.num_missing} "
            f"of {given.num_looked_for} are missing; one of the two is another one than is meant"
        )
    if not given.store_is_empty and not given.num_looked_for:
        state = "is empty" if given.registry_is_empty else "names none of it"
        return (
            f"the store holds data and the registry {state}: "
            "a wrong address or database, or a registry that lost its data"
        )
    return None


def _fault_of_owned(given: Standing, mark: StoreMark) -> str:
    owner = short(str(mark.registry))
    if given.identity is None:
        state = "is empty" if given.registry_is_empty else "has no id"
        return (
            f"the store belongs to the registry {owner}, and this one {state}: a wrong address or "
            "database, or a registry that lost its data"
        )
    if given.identity.id != mark.registry:
        return (
            f"the store belongs to the registry {owner}, and this one is "
            f"{short(given.identity.id)}: one of the two is another one than is meant"
        )
    return f"the registry belongs to another store, {short(given.identity.store)}"


def advice(words: str) -> str:
    """Return what to do about a fault; `words` are the options that name registry and store."""
    return (
        "Name a registry and a store that belong together (OVERTONE_REGISTRY, OVERTONE_STORE, "
        "OVERTONE_DATA), or restore the registry's backup. To give this store to this registry, "
        f"which removes nothing: overtone store adopt {words}"
    )


def short(id_: str) -> str:
    """Return the beginning of an id, for messages."""
    return f"{id_[:8]}…"
