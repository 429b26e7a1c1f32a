"""A random base calls functions where it must: in its template's form, as their schemas say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tool_templates
from live import Live, serving, settings_of

_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("mistral", "none")]
FAMILIES = ["hermes", "llama", "mistral with ids", *_SLOW]
PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Köln", 'a "b"']},
        "days": {"type": "array", "items": {"enum": [1, 2, 3]}, "maxItems": 2},
        "unit": {"anyOf": [{"$ref": "#/$defs/unit"}, {"type": "null"}]},
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
    "$defs": {"unit": {"type": "string", "pattern": "^[CF]$"}},
}
SCHEMAS: dict[str, Any] = {"weather": PARAMETERS, "stop": {"type": "object", "maxProperties": 0}}


def tools(**more: Any) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": name, "parameters": schema, **more}}
        for name, schema in SCHEMAS.items()
    ] + [{"type": "function", "function": {"name": "now", **more}}]


def random_base(folder: Path, family: str) -> Path:
    tokenizer = tool_templates.tokenizer(family)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=4096,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def live(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, few_threads: None
) -> Iterator[Live]:
    folder = random_base(tmp_path_factory.mktemp("random"), request.param)
    with serving(settings_of(folder, tmp_path_factory.mktemp("data"))) as server:
        yield server


def ask(live: Live, status: int = 200, **params: Any) -> Any:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "How warm?"}],
        "tools": tools(),
        "max_tokens": 400,
        **params,
    }
    answer = live.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()["error"] if status != 200 else answer.json()["choices"]


def check(choice: dict[str, Any]) -> list[str]:
    """Hold the calls of a choice against the schemas; return the functions' names."""
    message = choice["message"]
    assert (message["content"], choice["finish_reason"]) == (None, "tool_calls")
    for call in message["tool_calls"]:
        function = call["function"]
        arguments = json.loads(function["arguments"])
        jsonschema.validate(arguments, SCHEMAS.get(function["name"], {"maxProperties": 0}))
    assert len({call["id"] for call in message["tool_calls"]}) == len(message["tool_calls"])
    return [call["function"]["name"] for call in message["tool_calls"]]


def test_where_a_call_is_required_every_answer_is_one(live: Live) -> None:
    choices = ask(live, tool_choice="required", parallel_tool_calls=False, n=48, seed=1)
    names = [check(choice) for choice in choices]
    assert {len(each) for each in names} == {1}
    assert {name for each in names for name in each} == {"weather", "stop", "now"}


def test_a_named_function_is_called_once(live: Live) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    for stream in (False, True):
        choices = ask(live, tool_choice=choice, temperature=0) if not stream else streamed(live)
        assert check(choices[0]) == ["weather"]


def streamed(live: Live) -> Any:
    """Return a choice from a stream's pieces, which begin with the name."""
    choice = {"type": "function", "function": {"name": "weather"}}
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "How warm?"}],
        "tools": tools(),
        "tool_choice": choice,
        "temperature": 0,
        "stream": True,
    }
    text = live.http.post("/v1/chat/completions", json=body).text
    chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    pieces = [chunk["choices"][0] for chunk in chunks]
    calls = [piece["delta"]["tool_calls"][0] for piece in pieces if "tool_calls" in piece["delta"]]
    assert calls[0]["function"] == {"name": "weather", "arguments": ""}
    assert len(calls) > 4
    arguments = "".join(call["function"]["arguments"] for call in calls)
    call = {"id": calls[0]["id"], "function": {"name": "weather", "arguments": arguments}}
    message = {"content": None, "tool_calls": [call]}
    return [{"message": message, "finish_reason": pieces[-1]["finish_reason"]}]


def test_several_calls_are_well_formed_to_where_the_answer_ends(live: Live) -> None:
    for choice in ask(live, tool_choice="required", n=8, seed=2):
        calls = choice["message"]["tool_calls"]
        whole = calls if choice["finish_reason"] == "tool_calls" else calls[:-1]
        for call in whole:
            function = call["function"]
            schema = SCHEMAS.get(function["name"], {"maxProperties": 0})
            jsonschema.validate(json.loads(function["arguments"]), schema)


def test_a_call_that_is_cut_off_is_told_as_far_as_it_goes(live: Live) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    whole, cut = (
        ask(live, tool_choice=named, temperature=0, max_tokens=count)[0] for count in (400, 24)
    )
    assert (whole["finish_reason"], cut["finish_reason"]) == ("tool_calls", "length")
    function, begun = (one["message"]["tool_calls"][0]["function"] for one in (whole, cut))
    assert begun["name"] == "weather"
    assert begun["arguments"]
    assert function["arguments"].startswith(begun["arguments"])
    assert function["arguments"] != begun["arguments"]


def test_strict_functions_are_called_as_their_schemas_say_where_they_may_be(live: Live) -> None:
    # Biased to what begins a call, or the content of a random base would never have one.
    form = live.service.text.template.form
    tokenizer = live.service.base.tokenizer
    begin = tokenizer(form.opening or "{", add_special_tokens=False)["input_ids"][0]
    choices = ask(live, tools=tools(strict=True), logit_bias={begin: 100}, n=4, seed=3)
    for choice in choices:
        assert choice["message"]["tool_calls"]
        calls = choice["message"]["tool_calls"]
        for call in calls if choice["finish_reason"] == "tool_calls" else calls[:-1]:
            schema = SCHEMAS.get(call["function"]["name"], {"maxProperties": 0})
            jsonschema.validate(json.loads(call["function"]["arguments"]), schema)


def test_with_a_response_format_an_answer_is_a_call_or_of_that_format(live: Live) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    format_ = {
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {**schema, "additionalProperties": False}},
    }
    asked = {"tools": tools(strict=True), "parallel_tool_calls": False, "n": 8, "seed": 4}
    for choice in ask(live, response_format=format_, **asked):
        if choice["message"].get("tool_calls"):
            check(choice)
        else:
            jsonschema.validate(json.loads(choice["message"]["content"]), schema)


@pytest.mark.parametrize(
    ("params", "param", "words"),
    [
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]},
            "tools[0].function.parameters",
            "not",
        ),
        ({"guided_regex": "a", "tool_choice": "auto"}, "guided_regex", "with tools only if"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    live: Live, params: dict[str, Any], param: str, words: str
) -> None:
    error = ask(live, 400, **{"tool_choice": "required", **params})
    assert error["param"] == param
    assert words in error["message"]
