"""What answers say over HTTP: stop strings, special tokens, log-probabilities."""

import json
from typing import Any

import pytest

import tiny
from live import Live

#: Logit biases that leave one token, or two, to choose from.
END = {str(tiny.EOS): 100}


def ids_of(text: str) -> list[int]:
    return list(tiny.tokenizer()(text)["input_ids"])


def choice(live: Live, **params: Any) -> dict[str, Any]:
    answer = live.complete("tiny", **params)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()["choices"][0]
    return told


def streamed(live: Live, **params: Any) -> list[dict[str, Any]]:
    """Return the choice of every chunk."""
    answer = live.complete("tiny", stream=True, **params)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n")[:-2]]
    return [one for line in lines for one in json.loads(line)["choices"]]


@pytest.mark.parametrize("skips", [True, False])
def test_the_text_of_a_special_token_stops_an_answer(live: Live, skips: bool) -> None:
    asked: dict[str, Any] = {"logit_bias": END, "ignore_eos": True, "stop": ["<eos>"]}
    told = choice(live, skip_special_tokens=skips, **asked)
    assert (told["text"], told["finish_reason"], len(told["token_ids"])) == ("", "stop", 1)
    told = choice(live, skip_special_tokens=skips, include_stop_str_in_output=True, **asked)
    assert (told["text"], told["finish_reason"]) == ("<eos>", "stop")


def test_special_tokens_are_told_if_asked_for(live: Live) -> None:
    asked: dict[str, Any] = {"logit_bias": END, "ignore_eos": True, "max_tokens": 3}
    assert choice(live, **asked)["text"] == ""
    assert choice(live, skip_special_tokens=True, **asked)["text"] == ""
    assert choice(live, skip_special_tokens=False, **asked)["text"] == "<eos>" * 3
    pieces = streamed(live, skip_special_tokens=False, **asked)
    assert [piece["text"] for piece in pieces] == ["<eos>"] * 3


def test_what_ends_an_answer_is_kept_if_asked_for(live: Live) -> None:
    whole = choice(live, max_tokens=30, ignore_eos=True)["text"]
    stop = whole[10:12]
    end = whole.index(stop)
    assert "\ufffd" not in stop
    asked: dict[str, Any] = {"max_tokens": 30, "ignore_eos": True, "stop": stop}
    assert choice(live, **asked)["text"] == whole[:end]
    told = choice(live, include_stop_str_in_output=True, **asked)
    assert (told["text"], told["finish_reason"]) == (whole[: end + 2], "stop")


def test_a_stop_string_in_the_last_piece_of_an_answer_is_found(live: Live) -> None:
    """Two bytes of four are told as U+FFFD at the end, and not before."""
    half = ids_of("🌌")[0]
    asked: dict[str, Any] = {"logit_bias": {str(half): 100}, "max_tokens": 1}
    assert choice(live, **asked)["text"] == "\ufffd"
    told = choice(live, stop="\ufffd", **asked)
    assert (told["text"], told["finish_reason"]) == ("", "stop")
    (piece,) = streamed(live, stop="\ufffd", **asked)
    assert (piece["text"], piece["finish_reason"]) == ("", "stop")


def test_invalid_bytes_are_streamed_as_they_come(live: Live) -> None:
    invalid = next(
        token for token in range(256) if tiny.tokenizer().convert_ids_to_tokens(token) == "\u00ff"
    )
    pieces = streamed(live, logit_bias={str(invalid): 100}, max_tokens=40, ignore_eos=True)
    assert [piece["text"] for piece in pieces] == ["\ufffd"] * 40


def test_offsets_go_on_from_chunk_to_chunk(live: Live) -> None:
    asked: dict[str, Any] = {"logprobs": 2, "temperature": 1.5, "seed": 7, "max_tokens": 40}
    whole = choice(live, **asked)
    pieces = streamed(live, **asked)
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        parts = [one for piece in pieces for one in piece["logprobs"][name]]
        assert parts == whole["logprobs"][name]
    offsets = whole["logprobs"]["text_offset"]
    assert offsets == sorted(offsets)
    assert offsets[-1] > 0
    for token, offset in zip(whole["logprobs"]["tokens"], offsets, strict=True):
        assert token.startswith("bytes:") or whole["text"][offset:].startswith(token)


def test_the_chosen_token_is_among_the_alternatives(live: Live) -> None:
    told = choice(live, logprobs=3, temperature=1.9, seed=1, max_tokens=60)["logprobs"]
    beyond = 0
    for token, value, top in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
    ):
        assert top[token] == value
        assert len(top) in (3, 4)
        beyond += len(top) == 4
    assert beyond > 0
    only = choice(live, logprobs=0)["logprobs"]
    assert only["top_logprobs"] == [
        {token: value} for token, value in zip(only["tokens"], only["token_logprobs"], strict=True)
    ]
