"""Large answers are encoded in slices, and are the same bytes."""

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.api import json_answer as module
from server.api.json_answer import beside, json_answer, listed, one_line, pieces_of

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=60,
)


def plain(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


@settings(max_examples=300, deadline=None)
@given(value=values, few=st.integers(1, 20), items=st.integers(0, 4))
def test_slices_are_the_json_of_the_whole(value: Any, few: int, items: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", few)
        patch.setattr(module, "_FEW_ITEMS", items)
        assert b"".join(pieces_of(value)) == plain(value)


def entry(number: int) -> dict[str, Any]:
    top = [{"token": "é", "logprob": -0.5, "bytes": [195, 169]} for _ in range(20)]
    return {"token": str(number), "logprob": -0.1, "bytes": [49], "top_logprobs": top}


LARGE: dict[str, Any] = {
    "choices": [
        {"index": 0, "text": "short", "logprobs": None},
        {"index": 1, "text": "long", "logprobs": {"content": [entry(i) for i in range(3000)]}},
    ],
    "prompt_logprobs": [None, *[{str(i): {"logprob": 0.5}} for i in range(9000)]],
    "embedding": [[0.25] * 400] * 40,
    "token_ids": list(range(50_000)),
}


def test_no_slice_has_more_than_a_thousand_values(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, sizes = module._encode, []

    def counted(value: Any) -> str:
        sizes.append(json.dumps(value).count(","))
        return encode(value)

    monkeypatch.setattr(module, "_encode", counted)
    assert b"".join(pieces_of(LARGE)) == plain(LARGE)
    assert max(sizes) < 2_000
    assert len(sizes) < 2_000


def test_items_of_long_lists_are_made_a_few_at_a_time() -> None:
    """As many objects as are alive at a time, at most."""
    alive = most = 0

    class Item(dict[str, Any]):
        def __init__(self, number: int) -> None:
            nonlocal alive, most
            super().__init__(entry(number))
            alive += 1
            most = max(most, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    made = {"logprobs": {"content": listed(5000, Item)}}
    told = json.loads(b"".join(pieces_of(made)))
    assert told["logprobs"]["content"] == list(map(entry, range(5000)))
    assert most < 100
    assert alive == 0


def test_short_lists_are_lists() -> None:
    assert listed(3, lambda number: number * number) == [0, 1, 4]
    assert json.loads(b"".join(pieces_of(listed(1000, lambda number: -number)))) == [
        -number for number in range(1000)
    ]


def test_pieces_are_no_crumbs() -> None:
    pieces = list(pieces_of(LARGE))
    assert min(map(len, pieces[:-1])) >= 1 << 18
    assert max(map(len, pieces)) < 1 << 20


def test_only_much_work_goes_to_a_thread() -> None:
    async def both() -> tuple[threading.Thread, threading.Thread]:
        few = await beside(10, threading.current_thread)
        return few, await beside(100_000, threading.current_thread)

    few, many = asyncio.run(both())
    assert few is threading.main_thread()
    assert many is not threading.main_thread()


def test_an_answer_tells_its_length() -> None:
    async def sent() -> list[Any]:
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        answer = await json_answer(LARGE, {"X-Overtone-Adapter": "a"})
        await answer({"type": "http"}, send, send)  # type: ignore[arg-type]
        return messages

    start, *bodies = asyncio.run(sent())
    content = b"".join(body["body"] for body in bodies)
    headers = dict(start["headers"])
    assert headers[b"content-length"] == str(len(content)).encode()
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-overtone-adapter"] == b"a"
    assert content == plain(LARGE)
    assert [body["more_body"] for body in bodies] == [True] * (len(bodies) - 1) + [False]


@given(st.text())
def test_one_line_is_the_same_json_and_one_line_for_every_reader(text: str) -> None:
    for inner in (text, f"a\u2028{text}\x85b\u2029"):
        line = one_line(json.dumps(inner, ensure_ascii=False))
        assert json.loads(line) == inner
        assert len(line.splitlines()) == 1
