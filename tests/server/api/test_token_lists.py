"""Lists of a million ids are checked in pieces, and refused with the first id that is none."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from server.api import token_lists
from server.api.completion_schemas import CompletionRequest
from server.api.token_lists import Tokens
from server.api.validation import checked
from server.errors import InvalidRequest

MANY = 1_000_000


def test_a_long_list_is_the_same_list() -> None:
    ids = list(range(MANY))
    body = checked(CompletionRequest, {"model": "m", "prompt": ids})
    assert body.prompt == ids


def test_no_check_sees_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check runs no other thread before its end."""
    sizes: list[int] = []
    adapter = token_lists._ADAPTER

    class Counted:
        def validate_python(self, piece: list[Any]) -> Any:
            sizes.append(len(piece))
            return adapter.validate_python(piece)

    monkeypatch.setattr(token_lists, "_ADAPTER", Counted())
    TypeAdapter(Tokens).validate_python([7] * MANY)
    assert sum(sizes) == MANY
    assert max(sizes) == token_lists._AT_ONCE


@pytest.mark.parametrize("wrong", [-1, 1.5, "x", None, True])
@pytest.mark.parametrize("at", [123_456, MANY - 1])
def test_the_first_id_that_is_none_is_named(wrong: Any, at: int) -> None:
    ids: list[Any] = [7] * MANY
    ids[at:] = [wrong] * (MANY - at)
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Tokens).validate_python(ids)
    assert [fault["loc"] for fault in caught.value.errors()] == [(at,)]


def test_a_short_list_is_checked_alike() -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked(CompletionRequest, {"model": "m", "prompt": [1, 2, -3]})
    assert caught.value.param == "prompt[2]"
