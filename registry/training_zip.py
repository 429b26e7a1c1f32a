"""The images of a zip by their names and labels; nothing is unpacked but its table of labels.

Either each image lies in a folder named by its label, or `labels.jsonl` or `labels.csv` at the top
names `file` and `label` of each. Hostile input is expected: the directory's size is read before the
directory, the table's size before the table.
"""

import csv
import io
import json
import struct
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from registry.training_lines import Unreadable

MAX_IMAGES = 1 << 20
_MAX_DIRECTORY_BYTES = 256 << 20
_MAX_TABLE_BYTES = 256 << 20
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_TABLES = ("labels.jsonl", "labels.csv")
_END = struct.Struct("<4s4H2LH")  # the end record; its sixth field is the directory's size
_END64 = struct.Struct("<4sQ2H2L4Q")  # likewise of large zips; its ninth
_LOCATOR_BYTES = 20


def image_names(stream: BinaryIO) -> list[tuple[str, str]]:
    """Return name and label of each image.

    Raises:
        Unreadable: it is no whole zip, or holds something else than labelled images.
    """
    _check_directory(stream)
    try:
        with zipfile.ZipFile(stream) as archive:
            table = next((name for name in _TABLES if name in archive.NameToInfo), None)
            found = _of_folders(archive) if table is None else _of_table(archive, table)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise Unreadable(f"the file is not a whole zip: {error}") from error
    if len(found) > MAX_IMAGES:
        raise Unreadable(f"the zip has {len(found)} images; at most {MAX_IMAGES} are taken")
    return found


def _check_directory(stream: BinaryIO) -> None:
    """Refuse a directory that would fill the memory."""
    size = stream.seek(0, io.SEEK_END)
    start = max(0, size - _END.size - (1 << 16) - _END64.size - _LOCATOR_BYTES)
    stream.seek(start)
    tail = stream.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + _END.size > len(tail):
        raise Unreadable("the file is not a whole zip: its directory is missing")
    claimed = _END.unpack_from(tail, end)[5]
    large = tail.rfind(b"PK\x06\x06", 0, end)
    if large >= 0 and large + _END64.size <= len(tail):
        claimed = max(claimed, _END64.unpack_from(tail, large)[8])
    if claimed > _MAX_DIRECTORY_BYTES:
        limit = f"at most {_MAX_DIRECTORY_BYTES} are taken"
        raise Unreadable(f"the zip's directory claims {claimed} bytes; {limit}")


def _of_folders(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    found = []
    for name in sorted(archive.namelist()):
        parts = name.split("/")
        if name.endswith("/") or parts[0] == "__MACOSX" or parts[-1].startswith("."):
            continue
        if len(parts) < 2 or not name.lower().endswith(_ENDINGS):
            raise Unreadable(
                f"the zip holds {name[:80]!r}; expected images as LABEL/NAME.png, or labels.csv or "
                "labels.jsonl with file and label of each image"
            )
        found.append((name, parts[-2]))
    return found


def _of_table(archive: zipfile.ZipFile, table: str) -> list[tuple[str, str]]:
    if archive.NameToInfo[table].file_size > _MAX_TABLE_BYTES:
        raise Unreadable(f"{table} has more than {_MAX_TABLE_BYTES} bytes")
    with archive.open(table) as raw:
        lines = io.TextIOWrapper(raw, "utf-8-sig", "replace", newline="")
        found = []
        for number, row in _rows(lines, table):
            name, label = row.get("file"), row.get("label")
            if not isinstance(name, str) or not isinstance(label, str | int):
                raise Unreadable(f"of {table} has no file and label", number)
            if name not in archive.NameToInfo:
                raise Unreadable(f"of {table} names {name[:80]!r}, which is not in the zip", number)
            found.append((name, str(label)))
    return found


def _rows(lines: Iterable[str], table: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if table.endswith(".csv"):
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise Unreadable(f"of {table} is not CSV: {error}", reader.line_num) from error
        return
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unreadable(f"of {table} is not JSON", number) from error
        yield number, value if isinstance(value, dict) else {}
