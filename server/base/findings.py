"""What a start finds out about this machine and base, kept for the next one under the data folder.

A file holds what was found under one key, with a digest over both: the file of another key is not
read, and a damaged one counts as missing. Files are written beside their place and moved there
whole. At every start a small part of what was kept is tried again; where it no longer holds, all
is found out again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from adapters_core.part_files import part_of
from server.base.phases import Phases

T = TypeVar("T")
_LOG = logging.getLogger("overtone")
#: Files that are left of other keys: of other bases, or of versions before.
_MOST_FILES = 16


def _always(found: object) -> bool:
    return True


class Findings:
    """The findings of starts with one key.

    Args:
        folder: of all keys; it is made when the first finding is kept.
        key: the parts on which every finding depends.
        phases: what is found out now is a phase of the start.
    """

    def __init__(self, folder: Path, key: Iterable[str], phases: Phases) -> None:
        name = hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]
        self._file = folder / f"{name}.json"
        self._phases = phases
        self._found = self._read()

    def found(
        self,
        name: str,
        kind: TypeAdapter[T],
        find: Callable[[], T],
        *,
        depends: str = "",
        holds: Callable[[T], bool] = _always,
    ) -> T:
        """Return an earlier start's finding, else what `find` finds now, which is kept.

        Args:
            name: of the finding and its phase.
            kind: checks what was kept, and says how it is written.
            find: takes seconds; what it raises is raised, and nothing is kept.
            depends: the settings on which this finding depends.
            holds: tries a small part of what was kept again. False forgets all findings.
        """
        kept = self._kept(name, kind, depends)
        if kept and holds(kept[0]):
            self._phases.skip(name)
            return kept[0]
        if kept:
            _LOG.warning("%s: %r no longer holds; all is found out again", self._file, name)
            self._found.clear()
        with self._phases.phase(name):
            made = find()
        self._keep(name, {"depends": depends, "value": kind.dump_python(made, mode="json")})
        return made

    def _kept(self, name: str, kind: TypeAdapter[T], depends: str) -> tuple[T] | None:
        """Return what is kept under a name, None if it is not there or of other settings."""
        entry = self._found.get(name)
        if entry is None or entry.get("depends") != depends:
            return None
        try:
            return (kind.validate_python(entry["value"]),)
        except (ValueError, LookupError):
            _LOG.warning("%s: what was kept of %r cannot be read", self._file, name)
            return None

    def _read(self) -> dict[str, Any]:
        try:
            whole = json.loads(self._file.read_bytes())
            found: dict[str, Any] = whole["found"]
            is_whole = whole["sha256"] == self._digest(found)
        except FileNotFoundError:
            _LOG.info("first start with this base, machine and version: what takes long is kept")
            return {}
        except (OSError, ValueError, LookupError, TypeError):
            is_whole = False
        if not is_whole:
            _LOG.warning("%s is damaged; what it held is found out again", self._file)
            return {}
        return found

    def _keep(self, name: str, entry: dict[str, Any]) -> None:
        """Write all findings; a folder that cannot be written costs the next start its time."""
        self._found[name] = entry
        part = part_of(self._file)
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            whole = {"sha256": self._digest(self._found), "found": self._found}
            part.write_text(json.dumps(whole))
            part.replace(self._file)
            self._forget_others()
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            _LOG.warning("%s cannot be written: %s", self._file, error.strerror)

    def _forget_others(self) -> None:
        files = sorted(self._file.parent.glob("*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-_MOST_FILES]:
            file.unlink(missing_ok=True)

    def _digest(self, found: object) -> str:
        """Return a digest of findings under this key."""
        return hashlib.sha256(
            json.dumps([self._file.name, found], sort_keys=True).encode()
        ).hexdigest()
