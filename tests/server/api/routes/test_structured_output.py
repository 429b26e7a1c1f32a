"""Answers that are held to JSON, schemas, regular expressions, choices and grammars, over HTTP."""

import itertools
import json
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import spectra
import tiny
from live import Live
from schema_cases import KEPT
from structured import faults_of

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
CHAT = [{"role": "user", "content": "Who?"}]
#: A random base writes every character as likely as any other: these bring strings to their end.
CLOSING = {tiny.tokenizer().convert_tokens_to_ids(one): 5.0 for one in '"}]'}


@pytest.fixture(scope="module", autouse=True)
def _adapter(live: Live) -> None:
    assert live.upload("held", spectra.files(5)).status_code in (200, 201)


def choices_of(live: Live, **body: Any) -> list[dict[str, Any]]:
    """Return the choices of a completion at temperature 1."""
    fixed = {"model": "held", "prompt": "Once", "max_tokens": 300, "logit_bias": CLOSING, "seed": 1}
    answer = live.http.post("/v1/completions", json={**fixed, **body})
    assert answer.status_code == 200, answer.text
    choices: list[dict[str, Any]] = answer.json()["choices"]
    return choices


def text_of(live: Live, **body: Any) -> str:
    """Return the text of a completion that came to its end."""
    (choice,) = choices_of(live, **body)
    assert choice["finish_reason"] == "stop", choice
    return str(choice["text"])


def refused(live: Live, **body: Any) -> dict[str, Any]:
    answer = live.http.post("/v1/completions", json={"model": "tiny", "prompt": "a", **body})
    assert answer.status_code == 400, answer.text
    told: dict[str, Any] = answer.json()["error"]
    return told


WAYS: dict[str, tuple[dict[str, Any], Callable[[str], object]]] = {
    "json_object": (
        {"response_format": {"type": "json_object"}},
        lambda text: isinstance(json.loads(text), dict),
    ),
    "json_schema": ({"response_format": SCHEMA}, lambda text: not faults_of(text, PERSON)),
    "json_object with a schema": (
        {"response_format": {"type": "json_object", "schema": PERSON}},
        lambda text: not faults_of(text, PERSON),
    ),
    "guided_json": ({"guided_json": PERSON}, lambda text: not faults_of(text, PERSON)),
    "guided_json as text": (
        {"guided_json": json.dumps(PERSON)},
        lambda text: not faults_of(text, PERSON),
    ),
    "guided_regex": ({"guided_regex": "[a-c]{3}-\\d+!"}, re.compile(r"[a-c]{3}-\d+!").fullmatch),
    "guided_choice": ({"guided_choice": ["yes", "no"]}, {"yes", "no"}.__contains__),
    "guided_grammar": (
        {"guided_grammar": 'start: "(" start ")" | "x"'},
        lambda text: text.replace("x", "") == "(" * (len(text) // 2) + ")" * (len(text) // 2),
    ),
    "GBNF": ({"guided_grammar": 'root ::= "a" [b-d]+ "e"'}, re.compile("a[b-d]+e").fullmatch),
    "structured_outputs.json": (
        {"structured_outputs": {"json": PERSON}},
        lambda text: not faults_of(text, PERSON),
    ),
    "structured_outputs.regex": (
        {"structured_outputs": {"regex": "a+b"}},
        re.compile("a+b").fullmatch,
    ),
    "structured_outputs.choice": (
        {"structured_outputs": {"choice": ["日本", "x"]}},
        {"日本", "x"}.__contains__,
    ),
    "structured_outputs.json_object": (
        {"structured_outputs": {"json_object": True}},
        lambda text: isinstance(json.loads(text), dict),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_answers_are_what_was_asked_for(live: Live, way: str) -> None:
    body, holds = WAYS[way]
    for choice in choices_of(live, n=4, **body):
        assert choice["finish_reason"] == "stop"
        assert holds(choice["text"]), choice["text"]


def test_every_answer_within_a_schema_validates_in_a_mixed_batch(live: Live) -> None:
    """All schemas at once, beside answers without one."""

    def ask(name: str) -> list[dict[str, Any]]:
        schema = {"name": "case", "schema": KEPT[name]}
        form = {"type": "json_schema", "json_schema": schema}
        return choices_of(live, n=2, response_format=form)

    with ThreadPoolExecutor(16) as pool:
        free = [pool.submit(choices_of, live, max_tokens=40) for _ in range(4)]
        answers = dict(zip(KEPT, pool.map(ask, KEPT), strict=True))
        assert all(len(one.result()) == 1 for one in free)
    finished = 0
    for name, choices in answers.items():
        for choice in choices:
            if choice["finish_reason"] == "stop":
                finished += 1
                assert not faults_of(choice["text"], KEPT[name]), (name, choice["text"])
    assert finished > 1.5 * len(KEPT)


def test_a_chat_is_held_to_a_schema_too(live: Live) -> None:
    body = {"model": "held", "messages": CHAT, "response_format": SCHEMA, "logit_bias": CLOSING}
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert not faults_of(choice["message"]["content"], PERSON)


def test_text_is_no_constraint(live: Live) -> None:
    free = choices_of(live, max_tokens=12)
    assert choices_of(live, max_tokens=12, response_format={"type": "text"}) == free


def test_a_stream_says_what_a_whole_answer_says(live: Live) -> None:
    whole = text_of(live, response_format=SCHEMA)
    body = {"model": "held", "prompt": "Once", "max_tokens": 300, "logit_bias": CLOSING, "seed": 1}
    request = {**body, "response_format": SCHEMA, "stream": True}
    with live.http.stream("POST", "/v1/completions", json=request) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line[:5] == "data:"]
    events = [json.loads(line) for line in lines[:-1]]
    assert "".join(event["choices"][0]["text"] for event in events) == whole
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_choices_differ_and_seeds_repeat_them(live: Live) -> None:
    texts = [one["text"] for one in choices_of(live, n=4, response_format=SCHEMA)]
    assert len(set(texts)) == 4
    assert [one["text"] for one in choices_of(live, n=4, response_format=SCHEMA)] == texts
    assert text_of(live, response_format=SCHEMA) == texts[0]


def test_an_answer_cut_by_max_tokens_is_the_beginning_of_one(live: Live) -> None:
    whole = text_of(live, response_format=SCHEMA)
    (cut,) = choices_of(live, response_format=SCHEMA, max_tokens=7)
    assert cut["finish_reason"] == "length"
    assert whole.startswith(cut["text"])


def test_the_callers_own_stops_cut_an_answer_as_any_other(live: Live) -> None:
    assert text_of(live, response_format=SCHEMA, stop=['"age"']).rstrip().endswith(",")
    token = tiny.tokenizer().convert_tokens_to_ids("c")
    assert text_of(live, guided_regex="abcde", stop_token_ids=[token]) == "ab"


def test_logprobs_are_finite_and_of_what_is_allowed(live: Live) -> None:
    (choice,) = choices_of(live, guided_choice=["yes", "no"], logprobs=5)
    first = choice["logprobs"]["top_logprobs"][0]
    assert set(first) == {"y", "n"}
    assert sum(map(math.exp, first.values())) == pytest.approx(1, abs=1e-5)
    forced = choice["logprobs"]["token_logprobs"][1:]
    assert forced == pytest.approx([0] * len(forced), abs=1e-6)


@pytest.mark.parametrize("more", [{"ignore_eos": True}, {"min_tokens": 250}])
def test_an_answer_that_can_only_end_ends(live: Live, more: dict[str, Any]) -> None:
    """Whatever else is asked for: nothing may follow."""
    assert not faults_of(text_of(live, response_format=SCHEMA, **more), PERSON)


def test_an_end_token_comes_only_where_the_answer_may_end(live: Live) -> None:
    """However much the caller likes it."""
    eager = {**CLOSING, tiny.EOS: 100.0}
    assert re.fullmatch("a{5,}", text_of(live, guided_regex="a{5,9}", logit_bias=eager))


def test_a_stop_token_that_min_tokens_forbids_and_the_constraint_wants_is_an_error(
    live: Live,
) -> None:
    token = tiny.tokenizer().convert_tokens_to_ids("x")
    told = refused(
        live, guided_regex="x{4}", stop_token_ids=[token], min_tokens=1, max_tokens=1, logprobs=1
    )
    assert "min_tokens" in told["message"]


def test_min_tokens_keeps_an_answer_going_as_long_as_it_may(live: Live) -> None:
    eager = {tiny.EOS: 100.0}
    assert text_of(live, guided_regex="[a-d]+", logit_bias=eager, min_tokens=6)[:6].isalpha()
    assert len(text_of(live, guided_regex="[a-d]+", logit_bias=eager, min_tokens=6)) == 6


def test_other_answers_are_bit_for_bit_as_without_constraints_beside_them(live: Live) -> None:
    def tokens(seed: int) -> list[int]:
        return live.tokens("held", temperature=1, seed=seed, max_tokens=60, ignore_eos=True)

    alone = [tokens(seed) for seed in range(6)]
    with ThreadPoolExecutor(12) as pool:
        with live.paused():
            held = [pool.submit(text_of, live, response_format=SCHEMA, seed=i) for i in range(6)]
            beside = [pool.submit(tokens, seed) for seed in range(6)]
        assert [one.result() for one in beside] == alone
        assert all(not faults_of(one.result(), PERSON) for one in held)


def test_constrained_answers_are_the_same_when_they_are_preempted(
    live: Live, serve: Callable[..., Live]
) -> None:

    long = "([a-e]{99},){2}"

    def ask(server: Live, seed: int) -> str:
        return text_of(server, model="tiny", prompt=f"{seed}" * 99, guided_regex=long, seed=seed)

    alone = [ask(live, seed) for seed in range(12)]
    scarce = serve(kv_bytes=2**20)
    with ThreadPoolExecutor(12) as pool:
        with scarce.paused():
            together = [pool.submit(ask, scarce, seed) for seed in range(12)]
        assert [one.result() for one in together] == alone
    assert scarce.metric("overtone_preemptions_total") > 0


def test_constrained_answers_are_the_same_when_a_step_fails(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = text_of(live, response_format=SCHEMA)
    engine, count = live.service.runtime._engine, itertools.count()
    step = engine.step

    def failing(batch: Any) -> Any:
        tokens = step(batch)
        if len(batch.works) > 1 and next(count) % 3 == 1:
            raise RuntimeError("a step that fails once it has drawn")
        return tokens

    monkeypatch.setattr(engine, "step", failing)
    with ThreadPoolExecutor(4) as pool:
        texts = list(pool.map(lambda _: text_of(live, response_format=SCHEMA), range(4)))
    assert set(texts) == {whole}
    assert next(count) > 3, "steps have failed"


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "two constraints": (
        {"guided_regex": "a", "response_format": {"type": "json_object"}},
        "guided_regex",
        "one of them may",
    ),
    "two within one": (
        {"structured_outputs": {"regex": "a", "choice": ["b"]}},
        "structured_outputs.choice",
        "one of them may",
    ),
    "no schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
        "required",
    ),
    "an unknown kind": (
        {"response_format": {"type": "structural_tag"}},
        "response_format",
        "'json_schema'",
    ),
    "an unknown field": (
        {"response_format": {"type": "json_object", "mode": 1}},
        "response_format.mode",
        "mode",
    ),
    "an unsupported keyword": (
        {"guided_json": {"type": "array", "uniqueItems": True}},
        "guided_json",
        '"uniqueItems"',
    ),
    "an unsupported format": (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "string", "format": "iri"}},
            }
        },
        "response_format.json_schema.schema",
        "'iri'",
    ),
    "text that is no JSON": ({"guided_json": "{"}, "guided_json", "is not JSON"),
    "text that is too deep": ({"guided_json": "[" * 5000}, "guided_json", "too deep"),
    "a schema that is too deep": (
        {"guided_json": '{"not":' * 200 + "{}" + "}" * 200},
        "guided_json",
        "nested too deeply: more than 100 levels",
    ),
    "a key twice": (
        {"guided_json": '{"type": "integer", "type": "string"}'},
        "guided_json",
        "the key `type` twice",
    ),
    "half of a character": ({"guided_json": '{"const": "\\ud83d"}'}, "guided_json", "half of a"),
    "a bad expression": ({"guided_regex": "a("}, "guided_regex", "unclosed"),
    "an empty choice": ({"guided_choice": []}, "guided_choice", "at least 1"),
    "a bad grammar": ({"guided_grammar": "start: x"}, "guided_grammar", "x"),
    "a long text": ({"guided_regex": "a" * 300_000}, "guided_regex", "at most 262144"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_kept_is_refused_by_name(live: Live, name: str) -> None:
    body, param, words = REFUSALS[name]
    told = refused(live, **body)
    assert told["param"] == param
    assert words in told["message"]
    streamed = refused(live, stream=True, **body)
    assert streamed == told, "before a stream begins"


HOSTILE: dict[str, dict[str, Any]] = {
    "a stack of references": {
        "guided_json": {
            "$defs": {
                **{f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(6000)},
                "d6000": {"type": "boolean"},
            },
            "$ref": "#/$defs/d0",
        }
    },
    "hours of compiling": {
        "guided_json": {"allOf": [{"type": "string", "pattern": f"x.*{i}"} for i in range(25)]}
    },
    "rules upon rules": {
        "guided_grammar": "start: r0\n"
        + "\n".join(f"r{i}: r{i + 1}" for i in range(12_000))
        + '\nr12000: "a"'
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_takes_for_ever_or_all_of_the_stack_harms_no_other(live: Live, name: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        hostile = pool.submit(refused, live, **HOSTILE[name])
        assert live.tokens("held", max_tokens=4)
        assert "too large" in hostile.result()["message"]
    assert not faults_of(text_of(live, response_format=SCHEMA), PERSON)
    assert "too large" in refused(live, **HOSTILE[name])["message"], "known by now"


def test_a_base_whose_answers_are_not_its_tokens_put_together_refuses_constraints_in_words(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    from server.constraints import compiler, vocabulary

    def unreadable(*_: Any) -> Any:
        raise vocabulary.NotReadable("it writes 'ab' for tokens that are 'a b' one by one")

    monkeypatch.setattr(compiler, "vocabulary_of", unreadable)
    other = compiler.Constraints(live.service.base.tokenizer, tiny.VOCABULARY)
    monkeypatch.setattr(type(live.service), "constraints", property(lambda _: other))
    told = refused(live, guided_regex="a+")
    other.close()
    assert told["code"] == "unsupported_parameter"
    assert "tokenizer" in told["message"]
