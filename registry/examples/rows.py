"""The records of a file of any kind; the kind is seen by its first bytes, not by its name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from registry.examples.images import ZipImages
from registry.examples.lines import CsvLines, JsonLines, Rows
from registry.training_data.lines import Kind, sniffed

_READERS: Mapping[Kind, Callable[[Path], Rows]] = {
    "jsonl": JsonLines,
    "csv": CsvLines,
    "images": ZipImages,
}


def rows_of(path: Path) -> Rows:
    """Return the records of a file.

    Raises:
        Unreadable: it cannot be read as what its first bytes say.
    """
    with path.open("rb") as file:
        kind = sniffed(file)
    return _READERS[kind](path)
