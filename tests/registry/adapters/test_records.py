"""A record comes back as it went in, and a damaged one is an error that names its key."""

import json
import math
from dataclasses import FrozenInstanceError

import pytest

from registry.adapters.records import NewVersion, Record
from registry.common.notes import MAX_NOTES_BYTES, MAX_NOTES_DEPTH
from registry.errors import CorruptRecord, InvalidArgument, InvalidName


def store(description, metadata=None, metrics=None):
    notes = {"metadata": metadata or {}, "metrics": metrics or {}}
    return new_version(description, **notes).stored


def new_version(description, **changes):
    words = {"name": "poet", "created_at": 12, "created_by": "me", **changes}
    return NewVersion(description=description, **words)


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

    assert record.description == description
    assert record.metadata == {"für": ["Ä", None, {"deep": True}]}
    assert record.metrics == {"loss": 0.5}
    assert (record.created_at, record.created_by) == (12, "me")
    assert record.reference == "poet@3"


#: As versions before 0.2 stored it.
STORED = (
    f"sha256:{7:064x} fourierft\n"
    '{"method_config":{"n":7,"scale":300.0},"base_name":"tiny-base","base_fingerprint":"'
    + "f"
    * 64
    + '","base_verified":true,"target_modules":["model.layers.0.self_attn.q_proj",'
    '"model.layers.0.mlp.up_proj"],"num_coefficients":14,"size_bytes":56,"created_at":12,'
    '"created_by":"me","metadata":{"f\\u00fcr":[null,{"deep":true}]},"metrics":{"loss":0.5}}'
)


def test_a_record_is_stored_in_the_bytes_that_earlier_programs_wrote_and_read(describe):
    record = Record.read(STORED.encode(), "poet", 1)
    notes = {"metadata": {"für": [None, {"deep": True}]}, "metrics": {"loss": 0.5}}
    assert record.description == describe(7)
    assert {"metadata": record.metadata, "metrics": record.metrics} == notes
    assert new_version(describe(7), **notes).stored == STORED


@pytest.mark.parametrize("changes", [{"name": "a b"}, {"alias": "1"}, {"alias": "latest"}])
def test_a_version_with_a_bad_name_or_alias_cannot_be_made(describe, changes):
    with pytest.raises(InvalidName):
        new_version(describe(1), **changes)


def test_record_is_frozen(stored):
    with pytest.raises(FrozenInstanceError):
        Record.read(stored, "poet", 1).version = 2


def test_field_of_a_later_program_is_left_aside(stored):
    assert (
        Record.read(damaged(stored, invented_later=1), "poet", 1).description.num_coefficients == 14
    )


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
