"""A zip of labelled images, hostile input expected: nothing is unpacked to disk.

Either each image lies in a folder named by its label, or `labels.jsonl` or `labels.csv` at the top
names `file` and `label` of each. A few kilobytes of PNG may stand for gigabytes of pixels, so size
and format are checked before anything is decoded.
"""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from trainer.errors import Fault, InvalidTrainingFile

MAX_IMAGE_BYTES = 32 << 20
MAX_PIXELS = 16 << 20
MAX_IMAGES = 1 << 20
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_TABLES = ("labels.jsonl", "labels.csv")
_MAX_TABLE_BYTES = 256 << 20


class ZipImages:
    """The images of a zip with their labels, in the order of their names or of the table."""

    def __init__(self, path: Path, param: str) -> None:
        self._param = param
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise self._wrong(f"is not a whole zip: {error}") from error
        table = next((name for name in _TABLES if name in self._zip.NameToInfo), None)
        self._images = self._of_folders() if table is None else self._of_table(table)
        if len(self._images) > MAX_IMAGES:
            raise self._wrong(f"has {len(self._images)} images; at most {MAX_IMAGES} are taken")

    def __len__(self) -> int:
        return len(self._images)

    def line(self, index: int) -> int:
        """Return the image's number, from 1."""
        return index + 1

    def row(self, index: int) -> dict[str, Any]:
        """Return `image`, decoded to RGB, `label` and `file`."""
        name, label = self._images[index]
        return {"image": self._decoded(name), "label": label, "file": name}

    def _decoded(self, name: str) -> Image.Image:
        info = self._zip.NameToInfo.get(name)
        if info is None:
            raise ValueError(f"names {name!r}, which is not in the zip")
        if info.file_size > MAX_IMAGE_BYTES:
            message = f"{name}: {info.file_size} bytes; at most {MAX_IMAGE_BYTES} are taken"
            raise ValueError(message)
        try:
            with Image.open(io.BytesIO(self._zip.read(info)), formats=_FORMATS) as image:
                pixels = image.size[0] * image.size[1]
                if pixels > MAX_PIXELS:
                    raise ValueError(f"{pixels} pixels; at most {MAX_PIXELS} are taken")
                return ImageOps.exif_transpose(image).convert("RGB")
        except UnidentifiedImageError as error:
            raise ValueError(f"{name}: is none of {', '.join(_FORMATS)}") from error
        except (OSError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{name}: cannot be decoded: {error}") from error
        except (RuntimeError, NotImplementedError) as error:
            raise ValueError(f"{name}: cannot be unpacked: {error}") from error

    def _of_folders(self) -> list[tuple[str, str]]:
        found = []
        for name in sorted(self._zip.namelist()):
            parts = name.split("/")
            if name.endswith("/") or parts[0] == "__MACOSX" or parts[-1].startswith("."):
                continue
            if len(parts) < 2 or not name.lower().endswith(_ENDINGS):
                raise self._wrong(
                    f"holds {name[:80]!r}; expected images as LABEL/NAME.png, or labels.csv or "
                    "labels.jsonl with file and label of each image"
                )
            found.append((name, parts[-2]))
        return found

    def _of_table(self, table: str) -> list[tuple[str, str]]:
        if self._zip.NameToInfo[table].file_size > _MAX_TABLE_BYTES:
            raise self._wrong(f"{table} has more than {_MAX_TABLE_BYTES} bytes")
        lines = io.StringIO(self._zip.read(table).decode("utf-8-sig", "replace"), newline="")
        rows = csv.DictReader(lines) if table.endswith(".csv") else map(_object, lines)
        found, faults = [], []
        for number, row in enumerate(rows, 1):
            name, label = (row.get("file"), row.get("label")) if row else (None, None)
            if isinstance(name, str) and isinstance(label, str | int):
                found.append((name, str(label)))
            else:
                faults.append(Fault(number, f"of {table} has no file and label"))
        if faults:
            raise InvalidTrainingFile(faults, self._param)
        return found

    def _wrong(self, message: str) -> InvalidTrainingFile:
        return InvalidTrainingFile([Fault(0, f"the file {message}")], self._param)


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
