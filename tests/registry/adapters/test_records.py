"""A record comes back as it went in, and a damaged one is an error that names its key."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest

from registry.adapters.records import Record, stored_form
from registry.common.notes import MAX_NOTES_BYTES, MAX_NOTES_DEPTH
from registry.errors import CorruptRecord, InvalidArgument, InvalidName


def store(description, metadata=None, metrics=None):
    notes = {"metadata": metadata or {}, "metrics": metrics or {}}
    return stored_form(description, created_at=12, created_by="me", **notes)


@pytest.fixture
def stored(describe):
    return store(describe(7)).encode()


def damaged(stored, **changes):
    head, body = stored.split(b"\n")
    return head + b"\n" + json.dumps({**json.loads(body), **changes}).encode()


def test_record_comes_back_as_it_went_in(describe):
    description = describe(7)
    text = store(description, {"für": ["Ä", None, {"deep": True}]}, {"loss": 0.5})

    record = Record.read(text.encode(), "poet", 3)

    for field in vars(description):
        assert getattr(record, field) == getattr(description, field)
    assert record.metadata == {"für": ["Ä", None, {"deep": True}]}
    assert record.metrics == {"loss": 0.5}
    assert (record.created_at, record.created_by) == (12, "me")
    assert record.reference == "poet@3"


def test_record_is_frozen(stored):
    with pytest.raises(FrozenInstanceError):
        Record.read(stored, "poet", 1).version = 2


def test_field_of_a_later_program_is_left_aside(stored):
    assert Record.read(damaged(stored, invented_later=1), "poet", 1).num_coefficients == 14


@pytest.mark.parametrize(
    "changes",
    [
        {"size_bytes": "8"},
        {"size_bytes": True},
        {"num_coefficients": 1.5},
        {"base_verified": 1},
        {"metadata": []},
        {"metrics": None},
        {"target_modules": "q_proj"},
        {"target_modules": [1]},
        {"created_by": None},
    ],
)
def test_field_of_another_type_is_named_with_its_key(stored, changes):
    with pytest.raises(CorruptRecord) as caught:
        Record.read(damaged(stored, **changes), "poet", 3)

    assert next(iter(changes)) in caught.value.message
    assert "records:poet field 3" in caught.value.message


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"\xff\xfe", b"no head\n{}", b"sha256:00 loca\n{}", b"[]", b"x" * 100]
    + [
        b"sha256:" + b"0" * 64 + b" loca\n" + body
        for body in (b"", b"{", b"[]", b"{}", b"[" * 9999)
    ],
)
def test_value_that_is_no_record_is_named_with_its_key(text):
    with pytest.raises(CorruptRecord, match="records:poet field 3"):
        Record.read(text, "poet", 3)


def nested(levels):
    value = {}
    for _ in range(levels):
        value = {"in": [value]}
    return value


@pytest.mark.parametrize(
    "notes",
    [
        {"loss": math.nan},
        {"loss": math.inf},
        {"who": object()},
        {"lone surrogate": "\ud800"},
        {"big": "x" * MAX_NOTES_BYTES},
        nested(MAX_NOTES_DEPTH),
        nested(20_000),
    ],
    ids=["nan", "inf", "object", "surrogate", "big", "deep", "very-deep"],
)
def test_notes_that_cannot_be_stored_are_refused(describe, notes):
    with pytest.raises(InvalidArgument):
        store(describe(1), metadata=notes)
    with pytest.raises(InvalidArgument):
        store(describe(1), metrics=notes)


def test_bad_digest_is_refused(describe):
    with pytest.raises(InvalidName):
        store(describe(1, digest="sha256:no"))
