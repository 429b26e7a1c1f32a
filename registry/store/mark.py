"""A store's mark: `store.json` in its folder, with the store's id and its registry's.

    {"format": 1, "store": <32 hex digits>, "registry": <32 hex digits> | null, "since": <seconds>,
     "former": [{"registry": ..., "until": <seconds>}, ...]}

Written whole or not at all. A store made before there were marks has none.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from registry.common.whole_files import write_whole
from registry.errors import CorruptRecord

NAME = "store.json"
_FORMAT = 1


@dataclass(frozen=True)
class StoreMark:
    """One store's mark.

    Args:
        store: the store's id; it never changes.
        registry: the id of the registry to which the store belongs; None: of none yet.
        since: when that became so, in seconds since 1970.
        former: the registries it belonged to before, each with the end of that time.
    """

    store: str
    registry: str | None = None
    since: float = 0.0
    former: tuple[tuple[str, float], ...] = ()

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the mark of the store in `folder`, or None if it has none.

        Raises:
            CorruptRecord: the file is there and is not what this program writes.
        """
        try:
            body = (folder / NAME).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _corrupt(str(error)) from error
        return cls.parse(body)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Return the mark of what `body` wrote.

        Raises:
            CorruptRecord: it is not what this program writes.
        """
        try:
            given = json.loads(body)
            if given["format"] != _FORMAT:
                raise _corrupt(f"its format is {given['format']!r}, this program knows {_FORMAT}")
            former = tuple((each["registry"], float(each["until"])) for each in given["former"])
            return cls(given["store"], given["registry"], float(given["since"]), former)
        except (KeyError, TypeError, ValueError) as error:
            raise _corrupt(f"{type(error).__name__} {error}") from error

    def body(self) -> bytes:
        """Return the mark as it is stored."""
        words = asdict(self) | {"format": _FORMAT}
        words["former"] = [{"registry": each, "until": until} for each, until in self.former]
        return f"{json.dumps(words, indent=1)}\n".encode()

    def write(self, folder: Path) -> None:
        """Make this the mark of the store in `folder`; it is on the disk afterwards.

        Raises:
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / NAME, self.body())

    def handed_to(self, registry: str, now: float) -> "StoreMark":
        """Return the mark of the same store as another registry's."""
        before = () if self.registry in (None, registry) else ((str(self.registry), now),)
        return StoreMark(self.store, registry, now, (*self.former, *before))


def _corrupt(why: str) -> CorruptRecord:
    return CorruptRecord(
        f"the store's file {NAME} cannot be read: {why}. It says to which registry the store "
        "belongs: restore it from a backup, or move it away and run `overtone store adopt`"
    )
