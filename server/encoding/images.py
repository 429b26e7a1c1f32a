"""Images out of data URLs, which may be hostile; no address is ever fetched.

The format, the bytes and the pixels are checked before anything is decoded: a few kilobytes of PNG
may decode to gigabytes of pixels.
"""

import base64
import binascii
import io
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from server.errors import InvalidRequest, PayloadTooLarge

#: Media type -> Pillow's name of the format; its decoders for all others are not used.
_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}


class Images:
    """A base's image processor.

    Args:
        processor: transformers', with size, mean and deviation.
        max_pixels: of an image as it is sent.
    """

    def __init__(self, processor: Any, max_pixels: int) -> None:
        self._processor = processor
        self._max_pixels = max_pixels

    def pixels(self, url: str) -> Tensor:
        """Return what the base reads, float32 `[channels, height, width]`.

        Raises:
            InvalidRequest: it is not a data URL of a known format, or cannot be decoded.
            PayloadTooLarge: it has too many pixels.
        """
        return self.of_image(self._decoded(*_parts(url)))

    def of_image(self, image: Image.Image) -> Tensor:
        """Return what the base reads of a decoded image, float32 `[channels, height, width]`."""
        given = self._processor(images=image, return_tensors="np")["pixel_values"][0]
        return torch.from_numpy(np.ascontiguousarray(given, dtype=np.float32))

    def _decoded(self, data: bytes, kind: str) -> Image.Image:
        try:
            with Image.open(io.BytesIO(data), formats=[kind]) as image:
                self._check(image.size)
                return ImageOps.exif_transpose(image).convert("RGB")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise PayloadTooLarge(
                f"an image has more pixels than the {self._max_pixels} that are taken", "input"
            ) from error
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
            raise InvalidRequest(f"an image is no {kind} that can be decoded", "input") from error

    def _check(self, size: tuple[int, int]) -> None:
        pixels = size[0] * size[1]
        if pixels > self._max_pixels:
            raise PayloadTooLarge(
                f"an image has {size[0]} x {size[1]} = {pixels} pixels; "
                f"at most {self._max_pixels} are taken",
                "input",
            )


def _parts(url: str) -> tuple[bytes, str]:
    """Return the bytes of a data URL and their format."""
    head, comma, body = url.partition(",")
    media, _, coding = head.removeprefix("data:").partition(";")
    if not url.startswith("data:") or not comma or coding.lower() != "base64":
        raise InvalidRequest(
            "an image is given as data:image/png;base64,…; addresses are not fetched", "input"
        )
    kind = _FORMATS.get(media.lower())
    if kind is None:
        known = ", ".join(_FORMATS)
        message = f"an image is of type {media[:80]!r}; {known} are read"
        raise InvalidRequest(message, "input")
    try:
        return base64.b64decode(body, validate=True), kind
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest("an image is not base64", "input") from error
