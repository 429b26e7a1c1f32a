"""A zip of labelled images, hostile input expected: nothing is unpacked to disk.

Images and their labels are found by the same code as at upload: registry/training_data/zips.py. A
few kilobytes of PNG may stand for gigabytes of pixels, so size and format are checked before
anything is decoded.
"""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from registry.training_data.zips import image_names

MAX_IMAGE_BYTES = 32 << 20
MAX_PIXELS = 16 << 20
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, zipfile.BadZipFile),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)


class ZipImages:
    """The images of a zip with their labels, in the order of their names or of the table.

    Raises:
        Unreadable: it is no zip of labelled images.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._images = image_names(file)
        self._zip = zipfile.ZipFile(path)

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
        info = self._zip.NameToInfo[name]
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
        except _BROKEN as error:
            raise ValueError(f"{name}: cannot be decoded: {error}") from error
        except (RuntimeError, NotImplementedError, zlib.error) as error:
            raise ValueError(f"{name}: cannot be unpacked: {error}") from error
