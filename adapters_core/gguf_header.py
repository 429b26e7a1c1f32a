"""What a GGUF file says of itself, read in milliseconds, without any package.

The format: a header with typed values and a table of tensors, then their data
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Only versions 2 and 3 exist in the
wild; version 1 counted in 32 bits.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
#: Type of a value -> its form, for `struct`; two more types are 8, a string, and 9, an array.
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
#: No file has more of either; a damaged one is found out before it takes memory.
_MOST_ENTRIES, _MOST_AXES = 1 << 20, 8
_ALIGNMENT = 32


@dataclass(frozen=True)
class GgufTensor:
    """One tensor.

    Args:
        name: ggml's, such as `blk.0.attn_q.weight`.
        shape: its fastest axis first.
        type: ggml's number of its encoding.
        offset: bytes from the start of the data.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """The header of a file.

    Args:
        values: key -> number or text; of an array, how many items it has.
        tensors: in the file's order.
        start: bytes before the data.
    """

    values: dict[str, Any]
    tensors: tuple[GgufTensor, ...]
    start: int

    @property
    def architecture(self) -> str:
        """Return what llama.cpp calls the model's kind, such as `llama`."""
        return str(self.values.get("general.architecture", ""))

    @property
    def numbers(self) -> int:
        """Return how many weights it has."""
        return sum(prod(tensor.shape) for tensor in self.tensors)


def has_magic(file: Path) -> bool:
    """Return whether a file begins as a GGUF file does."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_header(file: Path) -> GgufHeader:
    """Return a file's header.

    Raises:
        ValueError: it is no GGUF file, or ends within its header.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin as a GGUF file does")
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header()
            except (struct.error, IndexError, OverflowError, RecursionError) as error:
                raise ValueError("it is cut off: it ends within its header") from error


class _Reader:
    """Reads one value after another.

    Args:
        data: of the whole file.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, len(MAGIC)

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in _VERSIONS:
            raise ValueError(f"it is of GGUF's version {version}; versions 2 and 3 are read")
        num_tensors, num_values = self._number("Q"), self._number("Q")
        if max(num_tensors, num_values) > _MOST_ENTRIES:
            raise ValueError(
                f"it claims {num_tensors} tensors and {num_values} values: it is damaged"
            )
        values = {self._text(): self._value(self._number("I")) for _ in range(num_values)}
        tensors = tuple(self._tensors(num_tensors))
        given = values.get("general.alignment")
        aligned = given if isinstance(given, int) and given > 0 else _ALIGNMENT
        return GgufHeader(values, tensors, -(-self._at // aligned) * aligned)

    def _tensors(self, count: int) -> Iterator[GgufTensor]:
        for _ in range(count):
            name, axes = self._text(), self._number("I")
            if axes > _MOST_AXES:
                raise ValueError(f"tensor {name[:80]!r} claims {axes} axes: it is damaged")
            shape = tuple(self._number("Q") for _ in range(axes))
            yield GgufTensor(name, shape, self._number("I"), self._number("Q"))

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return value

    def _text(self) -> str:
        length = self._number("Q")
        end = self._at + length
        if end > len(self._data):
            raise IndexError(end)
        text = self._data[self._at : end]
        self._at = end
        return text.decode("utf-8", "replace")

    def _value(self, kind: int) -> Any:
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._skipped(self._number("I"), self._number("Q"))
        raise ValueError(f"it has a value of the unknown type {kind}: it is damaged")

    def _skipped(self, kind: int, count: int) -> int:
        """Step over an array, and return how many items it has."""
        if kind in _NUMBERS:
            self._at += count * struct.calcsize(f"<{_NUMBERS[kind]}")
        else:
            for _ in range(count):
                if self._at > len(self._data):
                    raise IndexError(self._at)
                self._value(kind)
        return count
