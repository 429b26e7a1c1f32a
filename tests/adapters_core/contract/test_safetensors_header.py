"""Hostile files: each is a clear error of the right class; good ones read as safetensors does."""

import json
import math
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from adapters_core.contract.digest import digest_of
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.contract.safetensors_header import (
    MAX_TENSORS,
    read_header,
    read_tensors,
)
from adapters_core.errors import AdapterError, InvalidAdapter, NonFinite, TooLarge

anything = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def tensor(start: int, stop: int, dtype: str = "F32", shape: Any = None) -> dict[str, Any]:
    shape = [(stop - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


GOOD = file_of({"a": tensor(0, 8), "b": tensor(8, 16)}, bytes(16))


def read(content: bytes, folder: Path, **options: int) -> dict[str, torch.Tensor]:
    path = folder / "file.safetensors"
    path.write_bytes(content)
    return read_tensors(path, read_header(path, **options))


def refused(content: bytes, folder: Path, **options: int) -> AdapterError:
    with pytest.raises(AdapterError) as caught:
        read(content, folder, **options)
    return caught.value


def test_the_good_file_is_good(tmp_path: Path) -> None:
    assert {name: t.tolist() for name, t in read(GOOD, tmp_path).items()} == {
        "a": [0.0, 0.0],
        "b": [0.0, 0.0],
    }


NOT_A_HEADER = {
    "empty": (b"", "no safetensors header"),
    "seven bytes": (b"1234567", "no safetensors header"),
    "header bigger than file": (file_of({}, length=1000), "claims 1000 bytes"),
    "header length negative": (file_of({}, length=2**64 - 2), "claims 18446744073709551614"),
    "header length high bit": (file_of({}, length=2**63), "claims 9223372036854775808"),
    "header one byte too long": (file_of(b"{}", length=3), "claims 3 bytes"),
    "no header": (file_of(b""), "not JSON"),
    "not JSON": (file_of(b"{nonsense}"), "not JSON"),
    "not UTF-8": (file_of(b'{"\xff\xfe": 1}'), "not UTF-8"),
    "UTF-16": (file_of('{"a": 1}'.encode("utf-16")), "not UTF-8"),
    "byte order mark": (file_of(b"\xef\xbb\xbf{}"), "not JSON"),
    "nested lists": (file_of(b"[" * 100_000), "nested too deeply"),
    "nested objects": (file_of(b'{"a":' * 100_000), "nested too deeply"),
    "huge integer": (file_of(b'{"a":' + b"9" * 5000 + b"}"), "too many digits"),
    "offset NaN": (file_of({"a": {"data_offsets": [math.nan, 4]}}), "no number of JSON"),
    "key twice": (
        file_of(b'{"a":%s,"a":%s}' % ((json.dumps(tensor(0, 4)).encode(),) * 2), bytes(4)),
        "the key `a` twice",
    ),
    "inner key twice": (
        file_of(b'{"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "the key `dtype` twice",
    ),
    "list": (file_of([1, 2]), "not a JSON object"),
    "null": (file_of(None), "not a JSON object"),
    "string": (file_of("text"), "not a JSON object"),
    "no tensors": (file_of({}), "no tensor"),
    "only metadata": (file_of({"__metadata__": {"format": "pt"}}), "no tensor"),
}


@pytest.mark.parametrize("case", list(NOT_A_HEADER))
def test_what_is_no_header_is_refused(case: str, tmp_path: Path) -> None:
    content, message = NOT_A_HEADER[case]
    error = refused(content, tmp_path)
    assert isinstance(error, InvalidAdapter)
    assert message in error.message
    assert error.param == "file"


BAD_TENSOR = {
    "unknown dtype": tensor(0, 4, dtype="F8_E4M3", shape=[4]),
    "bool dtype": tensor(0, 4, dtype="BOOL", shape=[4]),
    "dtype in lower case": tensor(0, 4, dtype="f32"),
    "dtype no string": tensor(0, 4, dtype=32),  # type: ignore[arg-type]
    "dtype a list": tensor(0, 4, dtype=["F32"]),  # type: ignore[arg-type]
    "no dtype": {"shape": [1], "data_offsets": [0, 4]},
    "no shape": {"dtype": "F32", "data_offsets": [0, 4]},
    "no offsets": {"dtype": "F32", "shape": [1]},
    "another field": tensor(0, 4) | {"more": 1},
    "no object": [0, 4],
    "null": None,
    "shape no list": tensor(0, 4, shape=1),
    "shape of floats": tensor(0, 4, shape=[1.0]),
    "shape of booleans": tensor(0, 4, shape=[True]),
    "shape of strings": tensor(0, 4, shape=["1"]),
    "negative dimension": tensor(0, 4, shape=[-1]),
    "two negative dimensions": tensor(0, 4, shape=[-1, -1]),
    "2**62 numbers": tensor(0, 4, shape=[2**62]),
    "product wraps to 4 bytes": tensor(0, 4, shape=[2**32 + 1, 2**32 - 1]),
    "2**40 x 2**40": tensor(0, 4, shape=[2**40, 2**40]),
    "five dimensions": tensor(0, 4, shape=[1, 1, 1, 1, 1]),
    "zero numbers": tensor(0, 0, shape=[0]),
    "zero numbers, bytes held": tensor(0, 4, shape=[0, 4]),
    "more bytes than numbers": tensor(0, 4, shape=[]) | {"data_offsets": [0, 8]},
    "fewer bytes than numbers": tensor(0, 4, shape=[2]),
    "offsets backwards": tensor(4, 0, shape=[1]),
    "offsets negative": tensor(-4, 0, shape=[1]),
    "one offset": tensor(0, 4) | {"data_offsets": [0]},
    "three offsets": tensor(0, 4) | {"data_offsets": [0, 4, 8]},
    "offsets of floats": tensor(0, 4) | {"data_offsets": [0.0, 4.0]},
    "offset of 2**64": tensor(0, 4, shape=[1]) | {"data_offsets": [2**64, 2**64 + 4]},
}


@pytest.mark.parametrize("case", list(BAD_TENSOR))
def test_a_bad_tensor_is_named(case: str, tmp_path: Path) -> None:
    error = refused(file_of({"some.name": BAD_TENSOR[case]}, bytes(4)), tmp_path)
    assert isinstance(error, InvalidAdapter)
    assert error.param == "some.name"
    assert error.message.startswith("some.name: ")


BAD_RANGE = {
    "overlap": ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, "b", "start at 4, not at 8"),
    "same bytes twice": ({"a": tensor(0, 8), "b": tensor(0, 8)}, 8, "b", "start at 0, not at 8"),
    "gap": ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12, "b", "start at 8, not at 4"),
    "gap at the front": ({"a": tensor(4, 8)}, 8, "a", "start at 4, not at 0"),
    "past the end": ({"a": tensor(0, 8)}, 4, "file", "cover 8 bytes of 4"),
    "truncated to nothing": ({"a": tensor(0, 8)}, 0, "file", "cover 8 bytes of 0"),
    "bytes left over": ({"a": tensor(0, 8)}, 9, "file", "cover 8 bytes of 9"),
}


@pytest.mark.parametrize("case", list(BAD_RANGE))
def test_tensors_must_cover_the_data_exactly(case: str, tmp_path: Path) -> None:
    header, size, param, message = BAD_RANGE[case]
    error = refused(file_of(header, bytes(size)), tmp_path)
    assert isinstance(error, InvalidAdapter)
    assert error.param == param
    assert message in error.message


@pytest.mark.parametrize(
    "metadata", [None, [], "text", 3, {"a": 1}, {"a": None}, {"a": {"b": "c"}}]
)
def test_bad_metadata_is_refused(metadata: Any, tmp_path: Path) -> None:
    error = refused(file_of({"__metadata__": metadata, "a": tensor(0, 4)}, bytes(4)), tmp_path)
    assert isinstance(error, InvalidAdapter)
    assert error.param == "__metadata__"


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\ud800", "x" * 513, "\u202egnp"])
def test_names_that_cannot_be_shown_are_refused(name: str, tmp_path: Path) -> None:
    error = refused(file_of({name: tensor(0, 4)}, bytes(4)), tmp_path)
    assert isinstance(error, InvalidAdapter)
    assert error.message.isprintable()


def test_a_header_over_a_mebibyte_is_too_large(tmp_path: Path) -> None:
    error = refused(file_of(b" " * (2**20 + 1)), tmp_path)
    assert isinstance(error, TooLarge)
    assert "1048577" in error.message


def test_600_000_tensors_cost_nothing(tmp_path: Path) -> None:
    entry = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    content = file_of(b"{" + b",".join(entry % i for i in range(600_000)) + b"}")
    start = time.thread_time()
    assert isinstance(refused(content, tmp_path), TooLarge)
    assert time.thread_time() - start < 1


def test_more_tensors_than_the_cap_are_too_large(tmp_path: Path) -> None:
    many = {f"{i:x}": 0 for i in range(MAX_TENSORS + 1)}
    error = refused(file_of(many), tmp_path)
    assert isinstance(error, TooLarge)
    assert str(MAX_TENSORS + 1) in error.message


def test_a_key_twice_among_a_hundred_thousand_is_found_at_once(tmp_path: Path) -> None:
    keys = [f'"{i:x}":0' for i in range(100_000)] + ['"1869f":0']
    start = time.thread_time()
    error = refused(file_of(("{" + ",".join(keys) + "}").encode()), tmp_path)
    assert time.thread_time() - start < 2
    assert "the key `1869f` twice" in error.message


def test_a_file_over_the_cap_is_too_large(tmp_path: Path) -> None:
    error = refused(GOOD, tmp_path, max_bytes=len(GOOD) - 1)
    assert isinstance(error, TooLarge)
    assert str(len(GOOD)) in error.message
    assert str(len(GOOD) - 1) in error.message
    read(GOOD, tmp_path, max_bytes=len(GOOD))


def test_a_file_cut_between_header_and_data_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(GOOD)
    header = read_header(path)
    path.write_bytes(GOOD[:-4])
    with pytest.raises(InvalidAdapter, match="b: the file ends before its data"):
        read_tensors(path, header)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_name_their_tensor(
    value: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    bad = torch.zeros(3, 4, dtype=dtype)
    bad[2, 1] = value
    save_file({"good": torch.ones(2, dtype=dtype), "bad": bad}, tmp_path / "f")
    with pytest.raises(NonFinite, match="bad") as caught:
        read_tensors(tmp_path / "f", read_header(tmp_path / "f"))
    assert caught.value.param == "bad"


def test_float64_beyond_float32_is_not_finite(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([1e300], dtype=torch.float64)}, tmp_path / "f")
    with pytest.raises(NonFinite):
        read_tensors(tmp_path / "f", read_header(tmp_path / "f"))


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
WHOLE = [torch.int64, torch.int32, torch.uint16, torch.uint8]


def test_good_files_read_as_safetensors_reads_them(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"t.{dtype}.{len(shape)}": torch.randint(0, 200, shape, generator=generator).to(dtype)
        for dtype in DTYPES + WHOLE
        for shape in [(), (3,), (5, 7), (2, 1, 3), (1, 2, 3, 4)]
    }
    save_file(tensors, tmp_path / "f", metadata={"format": "pt", "more": "text"})
    header = read_header(tmp_path / "f")
    got = read_tensors(tmp_path / "f", header)
    true = load_file(tmp_path / "f")
    assert set(got) == set(true)
    for name, want in true.items():
        want = want.float() if want.is_floating_point() else want
        assert got[name].dtype == want.dtype
        assert torch.equal(got[name], want), name
        assert header.tensors[name].count == want.numel()
    assert header.metadata == {"format": "pt", "more": "text"}


def test_tensors_that_lie_on_odd_bytes_are_read(tmp_path: Path) -> None:
    header = {"a": tensor(0, 3, "U8", [3]), "b": tensor(3, 11)}
    data = bytes([1, 2, 3]) + struct.pack("<2f", 1.5, -2.5)
    got = read(file_of(header, data), tmp_path)
    assert got["b"].tolist() == [1.5, -2.5]


def test_tensors_outlive_their_file_and_each_other(tmp_path: Path) -> None:
    got = read(GOOD, tmp_path)
    got["a"].fill_(7)
    assert got["b"].tolist() == [0.0, 0.0]


@anything
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(content: bytes, tmp_path: Path) -> None:
    only_adapter_errors(content, tmp_path)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["F32", "U8", "dtype", "shape", "data_offsets"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=5) | JSON,
        "data_offsets": st.lists(st.integers(-1, 12), max_size=3) | JSON,
    }
)


@anything
@given(
    header=st.dictionaries(st.sampled_from(["a", "b", "__metadata__", "é"]), ENTRY | JSON) | JSON,
    size=st.integers(0, 16),
)
def test_arbitrary_headers_raise_nothing_else(header: Any, size: int, tmp_path: Path) -> None:
    only_adapter_errors(file_of(header, bytes(size)), tmp_path)


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(["flip", "insert", "delete"]), st.floats(0, 1), st.integers(0, 255)),
    min_size=1,
    max_size=4,
)


@anything
@given(mutations=MUTATIONS)
def test_damaged_files_raise_nothing_else(
    mutations: list[tuple[str, float, int]], tmp_path: Path
) -> None:
    only_adapter_errors(mutated(GOOD, mutations), tmp_path)


def mutated(content: bytes, mutations: list[tuple[str, float, int]]) -> bytes:
    result = bytearray(content)
    for kind, place, value in mutations:
        at = int(place * max(0, len(result) - 1))
        if kind == "insert":
            result.insert(at, value)
        elif kind == "delete":
            del result[at : at + 1]
        elif result:
            result[at] ^= value
    return bytes(result)


def only_adapter_errors(content: bytes, folder: Path) -> None:
    error = None
    try:
        assert read(content, folder)
    except AdapterError as caught:
        error = caught
    assert error is None or len(error.message.encode()) <= 4 * 4000


def test_messages_stay_short_whatever_the_file_says(tmp_path: Path) -> None:
    error = refused(file_of({"a": tensor(0, 4, dtype="F" * 900_000)}, bytes(4)), tmp_path)
    assert len(error.message) <= 4000
    error = refused(file_of({"a": tensor(0, 4, shape=["9" * 900_000])}, bytes(4)), tmp_path)
    assert len(error.message) <= 4000


def digest(content: bytes, config: bytes, folder: Path) -> str:
    path = folder / "file.safetensors"
    path.write_bytes(content)
    return digest_of(path, PeftConfig.parse(config).canonical())


def test_digest_does_not_see_the_configs_spelling(tmp_path: Path) -> None:
    one = digest(GOOD, b'{"peft_type": "LORA", "r": 8, "more": {"a": 1, "b": [2]}}', tmp_path)
    other = digest(
        GOOD, b'{\n "r":8,"more":{"b":[2],\t"a":1},\n"peft_type":"LO\\u0052A"}\n', tmp_path
    )
    assert one == other
    assert one.startswith("sha256:")
    assert len(one) == 7 + 64


def test_digest_sees_every_byte(tmp_path: Path) -> None:
    config = b'{"peft_type": "LORA", "r": 8}'
    digests = {digest(GOOD, config, tmp_path), digest(GOOD, config.replace(b"8", b"9"), tmp_path)}
    for at in range(len(GOOD)):
        changed = bytearray(GOOD)
        changed[at] ^= 1
        digests.add(digest(bytes(changed), config, tmp_path))
    assert len(digests) == len(GOOD) + 2


def test_digest_never_changes(tmp_path: Path) -> None:
    """Records and caches hold digests of earlier builds."""
    config = b'{"peft_type": "LORA", "r": 8}'
    assert digest(GOOD, config, tmp_path) == DIGEST


def test_configs_nested_to_the_limit_of_recursion_are_no_crash(tmp_path: Path) -> None:
    limit = sys.getrecursionlimit()
    for depth in range(max(1, limit - 120), limit + 5):
        nested = b"[" * depth + b"]" * depth
        for name in (b"runtime_config", b"use_dora", b"bias", b"r"):
            config = b'{"peft_type": "LORA", "%s": %s}' % (name, nested)
            try:
                parsed = PeftConfig.parse(config)
                parsed.canonical()
                parsed.refuse_unread({"r"})
                parsed.integer("r", 8)
            except AdapterError:
                pass


DIGEST = "sha256:719149bb470cef7734ed6b8b4d630fe156b6376bab25b7d1edfc8217ed146827"
