"""The coefficient file: a strict reader of safetensors, hostile input expected.

The safetensors library accepts duplicate keys, headers of tens of megabytes and hundreds of
thousands of empty tensors; this door looks at the header itself, before anything is allocated.
A file is PEFT's adapter_model.safetensors; ours carries one more metadata entry, `overtone`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from adapters_core.errors import InvalidAdapter, NonFinite, TooLarge
from adapters_core.strict_json import UnclearJson, strict_json

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 16384
MAX_DIMENSIONS = 4
MAX_NAME_CHARS = 512
DEFAULT_MAX_FILE_BYTES = 1 << 30
_LENGTH_BYTES = 8

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U16": torch.uint16,
    "U8": torch.uint8,
}
#: How an empty tensor comes about, and what to do.
_PARTITIONED = (
    "DeepSpeed ZeRO-3 and FSDP leave such tensors where a model was saved without gathering its "
    "parameters: gather them, then save again"
)
#: First bytes of what is uploaded by mistake.
_NO_SAFETENSORS = {
    b"PK\x03\x04": "it is a zip, such as torch.save writes; save with safe_serialization=True",
    b"\x80\x02": "it is a pickle; save with safe_serialization=True",
    b"version ": "it is a pointer of Git LFS; fetch the file itself (git lfs pull)",
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the header: its dtype, shape and byte range in the data part."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Return how many numbers the tensor has."""
        return (self.stop - self.start) // self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """A checked header: tensors by name, metadata, and where the data part begins."""

    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]
    data_start: int


@dataclass(frozen=True)
class RawHeader:
    """A file's header as it stands there, and how many bytes follow it."""

    text: bytes
    data_bytes: int

    @property
    def data_start(self) -> int:
        """Return where the data part begins in the file."""
        return _LENGTH_BYTES + len(self.text)


def read_header(path: Path, max_bytes: int = DEFAULT_MAX_FILE_BYTES) -> Header:
    """Return the header of a safetensors file after checking every claim it makes.

    Raises:
        TooLarge: the file or its header is over the cap.
        InvalidAdapter: anything malformed; `param` names the tensor.
    """
    return parse_header(read_raw_header(path, max_bytes))


def read_raw_header(path: Path, max_bytes: int = DEFAULT_MAX_FILE_BYTES) -> RawHeader:
    """Return the header of a safetensors file as it is; `parse_header` checks it.

    Raises:
        TooLarge: the file or its header is over the cap.
        InvalidAdapter: the file has no header.
    """
    size = path.stat().st_size
    if size > max_bytes:
        raise TooLarge(f"the file has {size} bytes; at most {max_bytes} are taken", "file")
    with path.open("rb") as file:
        length = _header_bytes(file, size)
        return RawHeader(file.read(length), size - _LENGTH_BYTES - length)


def parse_header(raw: RawHeader) -> Header:
    """Return what a header says after checking every claim it makes.

    Raises:
        TooLarge: it names too many tensors.
        InvalidAdapter: anything malformed; `param` names the tensor.
    """
    entries = _json_of(raw.text)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InvalidAdapter("__metadata__ is not an object of strings", "__metadata__")
    if not entries:
        raise InvalidAdapter("the file holds no tensor", "file")
    if len(entries) > MAX_TENSORS:
        raise TooLarge(f"the file holds {len(entries)} tensors; at most {MAX_TENSORS}", "file")
    tensors = {name: _entry(name, entry) for name, entry in entries.items()}
    _check_ranges(tensors, raw.data_bytes)
    return Header(tensors, metadata, raw.data_start)


def _header_bytes(file: BinaryIO, size: int) -> int:
    length_bytes = file.read(_LENGTH_BYTES)
    if len(length_bytes) < _LENGTH_BYTES:
        raise InvalidAdapter(f"the file has {size} bytes: no safetensors header", "file")
    length = int.from_bytes(length_bytes, "little")
    if length > size - _LENGTH_BYTES:
        starts = [why for start, why in _NO_SAFETENSORS.items() if length_bytes.startswith(start)]
        why = starts[0] if starts else "the file is cut off, or no safetensors file"
        message = f"the header claims {length} bytes of a file of {size}: {why}"
        raise InvalidAdapter(message, "file")
    if length > MAX_HEADER_BYTES:
        raise TooLarge(f"the header has {length} bytes; at most {MAX_HEADER_BYTES}", "file")
    return length


def _json_of(text: bytes) -> dict[str, Any]:
    try:
        raw = strict_json(text)
    except UnclearJson as error:
        raise InvalidAdapter(f"the header {error}", "file") from error
    if not isinstance(raw, dict):
        raise InvalidAdapter("the header is not a JSON object", "file")
    return raw


def _entry(name: str, raw: Any) -> TensorEntry:
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise InvalidAdapter(f"a tensor's name is not printable or too long: {name[:80]!r}", "file")
    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise InvalidAdapter(f"{name}: expected dtype, shape and data_offsets", name)
    if not isinstance(raw["dtype"], str) or raw["dtype"] not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise InvalidAdapter(f"{name}: dtype {raw['dtype']!r} is not one of {known}", name)
    dtype = _DTYPES[raw["dtype"]]
    shape = _integers(name, raw["shape"], MAX_DIMENSIONS)
    offsets = _integers(name, raw["data_offsets"], 2)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise InvalidAdapter(f"{name}: data_offsets {list(offsets)} are no range", name)
    claimed = dtype.itemsize
    for length in shape:
        claimed *= length
    if 0 in shape:
        raise InvalidAdapter(f"{name}: shape {list(shape)} has no number. {_PARTITIONED}", name)
    if claimed != offsets[1] - offsets[0]:
        held = offsets[1] - offsets[0]
        raise InvalidAdapter(f"{name}: shape {list(shape)} needs {claimed} bytes, has {held}", name)
    return TensorEntry(dtype, shape, *offsets)


def _integers(name: str, raw: Any, max_length: int) -> tuple[int, ...]:
    good = isinstance(raw, list) and len(raw) <= max_length
    if not good or not all(type(i) is int and 0 <= i < 2**48 for i in raw):
        raise InvalidAdapter(f"{name}: {str(raw)[:80]} is no list of sizes", name)
    return tuple(raw)


def _check_ranges(tensors: Mapping[str, TensorEntry], data_bytes: int) -> None:
    """Check that the tensors cover the data part exactly, without gap or overlap."""
    end = 0
    for name, entry in sorted(tensors.items(), key=lambda item: item[1].start):
        if entry.start != end:
            raise InvalidAdapter(f"{name}: its bytes start at {entry.start}, not at {end}", name)
        end = entry.stop
    if end != data_bytes:
        cut = ": the file is cut off; save or upload it again" * (end > data_bytes)
        raise InvalidAdapter(f"the tensors cover {end} bytes of {data_bytes}{cut}", "file")


def read_tensors(path: Path, header: Header) -> dict[str, Tensor]:
    """Return the tensors of a file whose header was checked: float32, or their integer dtype.

    Raises:
        NonFinite: a number is NaN or infinite.
        InvalidAdapter: the file changed under the reader.
    """
    with path.open("rb") as file:
        file.seek(header.data_start)
        data = bytearray(file.read())
    for name, entry in header.tensors.items():
        if entry.stop > len(data):
            raise InvalidAdapter(f"{name}: the file ends before its data", name)
    return _at_once(data, header) or {
        name: _finite_float32(name, _in_file(data, entry)) for name, entry in header.tensors.items()
    }


def _at_once(data: bytearray, header: Header) -> dict[str, Tensor] | None:
    """Return the tensors if all have one floating dtype and every number is finite, else None.

    Two calls of torch instead of two a tensor, of which a file may have hundreds. Each has memory
    of its own: a head that stays must not keep the rest of its file.
    """
    dtypes = {entry.dtype for entry in header.tensors.values()}
    if len(dtypes) > 1 or not next(iter(dtypes)).is_floating_point:
        return None
    flat = torch.frombuffer(data, dtype=dtypes.pop()).to(torch.float32)
    if not bool(torch.isfinite(flat).all()):
        return None
    in_order = sorted(header.tensors.values(), key=lambda entry: entry.start)
    pieces = torch.split(flat, [entry.count for entry in in_order])
    at = {entry.start: piece for entry, piece in zip(in_order, pieces, strict=True)}
    return {
        name: at[entry.start].clone().view(entry.shape) for name, entry in header.tensors.items()
    }


def _in_file(data: bytearray, entry: TensorEntry) -> Tensor:
    flat = torch.frombuffer(data, dtype=entry.dtype, count=entry.count, offset=entry.start)
    return flat.view(entry.shape)


def _finite_float32(name: str, tensor: Tensor) -> Tensor:
    if not tensor.dtype.is_floating_point:
        return tensor.clone()
    tensor = tensor.to(torch.float32, copy=True)
    if not bool(torch.isfinite(tensor).all()):
        raise NonFinite(f"{name} holds NaN or infinity (in float32)", name)
    return tensor
