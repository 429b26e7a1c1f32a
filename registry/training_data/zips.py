"""The images of a zip by their names and labels; nothing is unpacked but its table of labels.

Either each image lies in a folder named by its label, or `labels.jsonl` or `labels.csv` at the top
names `file` and `label` of each. What could be meant in two ways is refused. Hostile input is
expected: the directory's size is read before the directory, the table's size before the table.
"""

import hashlib
import io
import struct
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, BinaryIO

from registry.training_data.lines import Table, Unreadable, named, object_of, objects_of

MAX_IMAGES = 1 << 20
_MAX_DIRECTORY_BYTES = 256 << 20
_MAX_TABLE_BYTES = 256 << 20
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_TABLES = ("labels.jsonl", "labels.csv")
#: Folders of these names are parts of a data set, not labels.
_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev"})
_TWO_FILES = "upload two files, a training file and a validation file"
_END = struct.Struct("<4s4H2LH")  # the end record; its sixth field is the directory's size
_END64 = struct.Struct("<4sQ2H2L4Q")  # likewise of large zips; its ninth
_LOCATOR_BYTES = 20
_CHUNK_BYTES = 1 << 20
#: Unpacked to see whether images are the same; a zip could ask for any work otherwise.
_MAX_COMPARED_BYTES = 256 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError)


def image_names(stream: BinaryIO) -> list[tuple[str, str]]:
    """Return name and label of each image.

    Raises:
        Unreadable: it is no whole zip, or holds something else than labelled images.
    """
    _check_directory(stream)
    try:
        with zipfile.ZipFile(stream) as archive:
            found = _labelled(archive)
            if len(found) > MAX_IMAGES:
                raise Unreadable(f"the zip has {len(found)} images; at most {MAX_IMAGES} are taken")
            _refuse_two_labels(archive, found)
    except _BROKEN as error:
        raise Unreadable(f"the file is not a whole zip: {error}") from error
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


def _labelled(archive: zipfile.ZipFile) -> list[tuple[str, str]]:
    names = [name for name in archive.namelist() if not _is_passed_over(name)]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise Unreadable(f"the zip holds {twice[:80]!r} twice; keep one of them")
    tables = [name for name in _TABLES if name in archive.NameToInfo]
    if len(tables) > 1:
        raise Unreadable(f"the zip holds {' and '.join(tables)}; keep the one that is right")
    return _of_table(archive, tables[0], names) if tables else _of_folders(sorted(names))


def _is_passed_over(name: str) -> bool:
    """Return whether a name is a folder's, or a file that operating systems add to archives."""
    parts = name.split("/")
    return name.endswith("/") or parts[0] == "__MACOSX" or parts[-1].startswith(".")


def _of_folders(names: list[str]) -> list[tuple[str, str]]:
    found, folders = [], set()
    for name in names:
        *folder, label, file = ["", *name.split("/")]
        if not label or not file.lower().endswith(_ENDINGS):
            raise Unreadable(
                f"the zip holds {name[:80]!r}; expected images as LABEL/NAME.png, or labels.csv or "
                "labels.jsonl with file and label of each image"
            )
        found.append((name, label))
        folders.add("/".join(folder[1:]))
    _check_folders(folders, {label for _, label in found})
    return found


def _check_folders(folders: set[str], labels: set[str]) -> None:
    """Refuse images that do not all lie as deep, and parts of a data set beside each other."""
    if len(folders) > 1:
        some = " and ".join(repr(folder[:40] or "the top") for folder in sorted(folders)[:2])
        way = "have one folder for each label, in one place"
        raise Unreadable(f"the zip has folders of labels in {some}; {_TWO_FILES}, or {way}")
    if len(labels) > 1 and {label.lower() for label in labels} <= _SPLITS:
        names = " and ".join(map(repr, sorted(labels)))
        raise Unreadable(
            f"the zip's folders {names} are parts of a data set, not labels; {_TWO_FILES}"
        )


def _of_table(archive: zipfile.ZipFile, table: str, names: list[str]) -> list[tuple[str, str]]:
    if archive.NameToInfo[table].file_size > _MAX_TABLE_BYTES:
        raise Unreadable(f"{table} has more than {_MAX_TABLE_BYTES} bytes")
    found: dict[str, str] = {}
    with archive.open(table) as raw:
        for number, row in _rows(raw, table):
            name, label = row.get("file"), row.get("label")
            if not isinstance(name, str) or not isinstance(label, str | int) or label == "":
                raise Unreadable(f"of {table} has no file and label", number)
            if name not in archive.NameToInfo:
                raise Unreadable(f"of {table} names {name[:80]!r}, which is not in the zip", number)
            if name in found:
                raise Unreadable(f"of {table} names {name[:80]!r} for the second time", number)
            found[name] = str(label)
    images = (name for name in names if name.lower().endswith(_ENDINGS))
    left = next((name for name in images if name not in found), None)
    if left is not None and found:
        raise Unreadable(f"the zip holds {left[:80]!r}, which {table} gives no label")
    return list(found.items())


def _rows(raw: Any, table: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the records of a table of labels with their lines."""
    number = 0
    try:
        if table.endswith(".csv"):
            rows = Table(raw)
            for number, _, values in rows:
                yield number, named(rows.names, values)
        else:
            for number, _, line in objects_of(raw):
                yield number, object_of(line)
    except Unreadable as error:
        raise Unreadable(f"of {table} {error}", error.line) from error
    except ValueError as error:
        raise Unreadable(f"of {table} {error}", number) from error


def _refuse_two_labels(archive: zipfile.ZipFile, found: list[tuple[str, str]]) -> None:
    """Refuse the same bytes under two labels: one of them is wrong."""
    alike: dict[tuple[int, int], list[tuple[str, str]]] = defaultdict(list)
    for name, label in found:
        info = archive.NameToInfo[name]
        alike[info.CRC, info.file_size].append((name, label))
    num_left = _MAX_COMPARED_BYTES
    for (_, size), some in alike.items():
        if len({label for _, label in some}) > 1:  # only these are read at all
            num_left -= size * len(some)
            if num_left < 0:
                return
            _compare(archive, some)


def _compare(archive: zipfile.ZipFile, some: list[tuple[str, str]]) -> None:
    known: dict[bytes, tuple[str, str]] = {}
    for name, label in some:
        other, first = known.setdefault(_digest(archive, name), (name, label))
        if first != label:
            raise Unreadable(
                f"{other[:80]!r} and {name[:80]!r} are the same image with the labels "
                f"{first[:40]!r} and {label[:40]!r}; keep the right one"
            )


def _digest(archive: zipfile.ZipFile, name: str) -> bytes:
    digest = hashlib.sha256()
    with archive.open(name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.digest()
