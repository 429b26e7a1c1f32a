"""The adapters as one tenant names and sees them.

    NAME         its own; where it has none of this name, the operators'
    OWNER:NAME   another tenant's that is shared with it; its own, too

What it may use it can name, list and read about; it changes its own alone. What it may not use is
as what is not there: the same words, after the same work, since whether a name is shared is asked
first, and is asked of names that are not there as well.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from registry.adapters.adapters import AdapterEntry, Adapters
from registry.adapters.directory import Directory
from registry.adapters.records import Record
from registry.adapters.sharing import EVERYONE
from registry.common.names import Reference, check_name, check_prefix
from registry.common.spaces import (
    OPERATORS,
    check_stored,
    in_space,
    is_space,
    owner_in,
    plain,
    shown_in,
    space_of,
)
from registry.errors import AdapterNotFound, InvalidName, NotOwner

T = TypeVar("T")
Entries = list[AdapterEntry]
#: Reads so many entries behind a place.
_Read = Callable[[int, str | None], Entries]


class AdapterView:
    """One tenant's view; made anew for every request.

    Args:
        adapters: the registry's records.
        directory: this process's mirror of them.
        space: of the tenant's own names.
    """

    def __init__(self, adapters: Adapters, directory: Directory, space: str) -> None:
        self._adapters = adapters
        self._directory = directory
        self._space = space

    @property
    def space(self) -> str:
        """Return the space of the tenant's own names."""
        return self._space

    def owns(self, stored: str) -> bool:
        """Return whether a stored name is the tenant's own."""
        return space_of(stored) == self._space

    def shown(self, stored: str) -> str:
        """Return a stored name as the tenant names it."""
        return shown_in(self._space, stored)

    def resolve(self, text: str) -> Record:
        """Return the record that a reference means, as of the last change seen.

        Raises:
            AdapterNotFound: it means nothing to this tenant.
            RegistryUnavailable: the registry is down and this reference is not known here.
        """
        owner, rest = owner_in(text)
        wanted = Reference.parse(rest)
        with _named(text):
            if owner is None:
                return self._own_or_common(wanted)
            stored = in_space(owner, wanted.name)
            self._check_use(owner, stored)
            return self._directory.resolve(replace(wanted, name=stored))

    def get(self, name: str) -> AdapterEntry:
        """Return a name's latest record and all its aliases, read from the registry.

        Raises:
            AdapterNotFound: no such name, for this tenant.
        """
        with _named(name):
            return self._adapters.get(self._found(name))

    def meanings(self, text: str) -> Sequence[str]:
        """Return the stored names that a reference may mean, the first one first, there or not."""
        owner, rest = owner_in(text)
        name = rest.partition("@")[0]
        if owner is None:
            return [*dict.fromkeys((in_space(self._space, name), name))]
        stored = in_space(owner, name)
        may_use = owner == self._space or self._directory.sharing(stored).lets(self._space)
        return [stored] if may_use else []

    def own(self, name: str) -> str:
        """Return how a name of the tenant's own is stored; it need not be there.

        Raises:
            NotOwner: it is another tenant's that may only be used.
            AdapterNotFound: it is another tenant's.
            InvalidName: it breaks the rule of names.
        """
        owner, rest = owner_in(name)
        if owner in (None, self._space):
            return in_space(self._space, check_name(rest))
        with _named(name):
            self._check_use(owner or OPERATORS, in_space(owner or OPERATORS, check_name(rest)))
        raise _not_owner(name)

    def change(self, name: str, act: Callable[..., T], *args: Any) -> T:
        """Return what `act` returns for a name of the tenant's own as it is stored, and `args`.

        Raises:
            NotOwner: it is another tenant's, or the operators', that may only be used.
            AdapterNotFound: no such name, for this tenant; or as `act` does.
        """
        stored = self.own(name)
        try:
            return act(stored, *args)
        except AdapterNotFound:
            is_common = self._space != OPERATORS and self._adapters.has(plain(stored))
            if is_common and not self._adapters.has(stored):
                raise _not_owner(name) from None
            raise

    def list(
        self,
        limit: int,
        after: str | None = None,
        method: str | None = None,
        prefix: str | None = None,
    ) -> Entries:
        """Return up to `limit` names that the tenant may use, in the byte order of what it says.

        Args:
            limit: 1 to `MAX_PAGE`. Fewer than this means that there are no more.
            after: the last name of the page before, as the tenant names it.
            method: only names whose latest version has this method.
            prefix: only names that begin so.

        Raises:
            InvalidArgument: the limit is out of range, or another value cannot be a name.
        """
        if after is not None:
            check_stored(after)
        if prefix is not None:
            _check_prefix(prefix)
        sources = [
            *self._of_spaces(limit, after, method, prefix),
            *self._of_others(limit, after, method, prefix),
        ]
        merged = heapq.merge(*sources, key=lambda entry: self.shown(entry.name).encode())
        return list(islice(self._each_once(merged), limit))

    def _own_or_common(self, wanted: Reference) -> Record:
        """Resolve a name without an owner: an own name hides one of the operators'."""
        if self._space == OPERATORS:
            return self._directory.resolve(wanted)
        own = replace(wanted, name=in_space(self._space, wanted.name))
        if self._directory.has(own.name):
            return self._directory.resolve(own)
        try:
            return self._directory.resolve(wanted)
        except AdapterNotFound:  # what was not there as of the last change may be by now
            return self._directory.resolve(own)

    def _found(self, name: str) -> str:
        """Return a name that the tenant may use as it is stored."""
        owner, rest = owner_in(name)
        if owner is not None:
            stored = in_space(owner, check_name(rest))
            self._check_use(owner, stored)
            return stored
        stored = in_space(self._space, check_name(rest))
        is_own = self._space == OPERATORS or self._adapters.has(stored)
        return stored if is_own else rest

    def _check_use(self, owner: str, stored: str) -> None:
        """Refuse what is not shared, without a look at whether it is there."""
        if owner == self._space:
            return
        if not is_space(owner) or not self._directory.sharing(stored).lets(self._space):
            raise AdapterNotFound(f"no adapter {stored!r}")

    def _of_spaces(
        self, limit: int, after: str | None, method: str | None, prefix: str | None
    ) -> Iterator[Iterator[AdapterEntry]]:
        """Yield the tenant's own entries and the operators'."""
        if prefix is not None and ":" in prefix:
            return
        for space in dict.fromkeys((self._space, OPERATORS)):

            def read(count: int, behind: str | None, space: str = space) -> Entries:
                return self._adapters.list(count, behind, method, prefix, space)

            found = _paged(read, limit, after, plain)
            yield found if space == self._space or method is None else self._unhidden(found)

    def _unhidden(self, entries: Iterator[AdapterEntry]) -> Iterator[AdapterEntry]:
        """Yield the operators' entries without those that an own name of any method hides."""
        for entry in entries:
            if not self._adapters.has(in_space(self._space, entry.name)):
                yield entry

    def _of_others(
        self, limit: int, after: str | None, method: str | None, prefix: str | None
    ) -> Iterator[Iterator[AdapterEntry]]:
        """Yield other tenants' entries that are shared with this one, or with all."""
        for tenant in (self._space, EVERYONE) if self._space else (EVERYONE,):

            def read(count: int, behind: str | None, tenant: str = tenant) -> Entries:
                return self._adapters.list_shared(tenant, count, behind, prefix)

            found = _paged(read, limit, after, str)
            yield (
                entry
                for entry in found
                if not self.owns(entry.name) and method in (None, entry.latest.description.method)
            )

    def _each_once(self, entries: Iterator[AdapterEntry]) -> Iterator[AdapterEntry]:
        """Yield the first of entries with one name: a tenant's own comes before the operators'."""
        before = None
        for entry in entries:
            name = self.shown(entry.name)
            if name != before:
                yield entry
            before = name


def _paged(
    read: _Read, limit: int, after: str | None, place_of: Callable[[str], str]
) -> Iterator[AdapterEntry]:
    """Yield all entries of a list, read page by page as they are wanted.

    Args:
        read: reads a page.
        limit: entries of one.
        after: where the first page begins.
        place_of: returns where a list goes on behind a stored name.
    """
    while True:
        page = read(limit, after)
        yield from page
        if len(page) < limit:
            return
        after = place_of(page[-1].name)


def _check_prefix(prefix: str) -> None:
    """Check how a name may begin: as `OWNER:NAME`, or without an owner.

    Raises:
        InvalidName: no name begins so.
    """
    owner, colon, rest = prefix.rpartition(":")
    if rest or not colon:
        check_prefix(rest)
    if colon and not is_space(owner):
        raise InvalidName(f"no adapter's name begins with {ascii(prefix[:120])}")


@contextmanager
def _named(text: str) -> Iterator[None]:
    """Say of what was not found only what was asked for."""
    try:
        yield
    except AdapterNotFound as error:
        if type(error) is not AdapterNotFound:
            raise
        raise AdapterNotFound(f"no adapter {text!r}") from None


def _not_owner(name: str) -> NotOwner:
    return NotOwner(
        f"{name!r} belongs to another tenant, which shares it: it may be used, and only its owner "
        "changes it or reads its files"
    )
