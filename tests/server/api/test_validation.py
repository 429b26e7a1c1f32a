"""A field at fault is named by its whole path, with the words of what the caller meant."""

from typing import Any

import pytest

from server.api.chat_schemas import ChatRequest
from server.api.completion_schemas import CompletionRequest
from server.api.encoding_schemas import ClassifyRequest, EmbeddingsRequest
from server.api.job_schemas import JobRequest
from server.api.validation import checked
from server.errors import InvalidRequest, UnsupportedParameter

HYPER = "method.supervised.hyperparameters"


def refused(model: Any, **body: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        checked(model, {"model": "m", **body})
    return caught.value


def completion(**body: Any) -> InvalidRequest:
    return refused(CompletionRequest, **{"prompt": "a", **body})


def job(**body: Any) -> InvalidRequest:
    return refused(JobRequest, **{"training_file": "f", **body})


def chat(*messages: Any) -> InvalidRequest:
    return refused(ChatRequest, messages=list(messages))


@pytest.mark.parametrize(
    ("prompt", "param", "expected"),
    [
        (5, "prompt", "a valid string or a valid list"),
        ({"a": 1}, "prompt", "an object: Input should be a valid string or a valid list"),
        ([], "prompt", "at least 1 item"),
        ([1, "a"], "prompt[1]", '"a": Input should be a valid integer'),
        ([1, -1], "prompt[1]", "greater than or equal to 0"),
        (["a", [1, -1]], "prompt[1][1]", "greater than or equal to 0"),
        (["a", 5], "prompt[1]", "a valid string or a valid list"),
        (["a"] * 129, "prompt", "at most 128 items"),
        ([[1]] * 129, "prompt", "at most 128 items"),
        ([[]], "prompt[0]", "at least 1 item"),
    ],
)
def test_the_branch_that_fits_best_is_the_one_that_was_meant(
    prompt: Any, param: str, expected: str
) -> None:
    error = completion(prompt=prompt)
    assert error.param == param
    assert expected in error.message
    assert error.message.startswith(f"{param} = ")


@pytest.mark.parametrize(
    ("model", "field", "value", "limit"),
    [
        (CompletionRequest, "prompt", ["a"] * 129, "at most 128 items, not 129"),
        (CompletionRequest, "prompt", [[1]] * 129, "at most 128 items, not 129"),
        (CompletionRequest, "prompt", ["a", [1]] * 65, "at most 128 items, not 130"),
        (CompletionRequest, "stop", ["a"] * 17, "at most 16 items, not 17"),
        (CompletionRequest, "logit_bias", dict.fromkeys(range(1025), 1), "at most 1024 items"),
        (ChatRequest, "stop", ["a"] * 17, "at most 16 items, not 17"),
        (ChatRequest, "messages", [{"role": "user", "content": "a"}] * 4097, "at most 4096 items"),
        (EmbeddingsRequest, "input", ["a"] * 2049, "at most 2048 items, not 2049"),
        (EmbeddingsRequest, "input", [[1]] * 2049, "at most 2048 items, not 2049"),
        (ClassifyRequest, "input", ["a", [1]] * 1025, "at most 2048 items, not 2050"),
        (JobRequest, "metadata", dict.fromkeys("abcdefghijklmnopq", "x"), "at most 16 items"),
    ],
)
def test_the_limit_of_a_list_is_said_with_its_field(
    model: Any, field: str, value: Any, limit: str
) -> None:
    others = {"prompt": "a", "messages": [{"role": "user", "content": "a"}], "input": "a"}
    mine = {name: given for name, given in others.items() if name in model.model_fields}
    if model is JobRequest:
        mine = {"training_file": "f"}
    error = refused(model, **mine | {field: value})
    assert error.param == field
    assert limit in error.message


@pytest.mark.parametrize(
    ("content", "param", "expected"),
    [
        (5, "", "a valid string or a valid list"),
        ({"type": "text", "text": "x"}, "", "a valid string or a valid list"),
        ([{"type": "image_url"}], "[0].type", "should be 'text'"),
        ([{"type": "text", "text": "x"}, {"type": "text"}], "[1].text", "Field required"),
        (["x"], "[0]", "a valid object"),
    ],
)
def test_a_message_is_named_with_its_number(content: Any, param: str, expected: str) -> None:
    good = {"role": "user", "content": "x"}
    error = chat(good, good, {"role": "user", "content": content})
    assert error.param == f"messages[2].content{param}"
    assert expected in error.message


def test_a_key_that_is_called_like_a_branch_is_still_a_key() -> None:
    assert job(metadata={"str": 5}).param == "metadata.str"


def test_a_field_of_an_object_in_a_list_that_is_not_supported_has_its_whole_path() -> None:
    good = {"role": "user", "content": "x"}
    error = chat(good, good | {"audio": {"id": "1"}})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "messages[1].audio"
    assert "'audio'" in error.message


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SAID = {"role": "assistant", "content": "x"}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "function", "content": "x", "name": "f"}, "role"),
        ({"role": "user"}, "content"),
        ({"role": "user", "content": None}, "content"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "content"),
        ({"role": "tool", "tool_call_id": "c", "content": None}, "content"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls"),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, "tool_call_id"),
        ({"role": "user", "content": "x", "refusal": "no"}, "refusal"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "no"}]}, "content"),
        ({"role": "user", "content": [{"type": "text"}]}, "content[0].text"),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "refusal": "y"}]},
            "content[0].refusal",
        ),
        ({**SAID, "function_call": {"name": "f", "arguments": "{}"}}, "function_call"),
        ({**SAID, "reasoning_content": "so"}, "reasoning_content"),
        ({**SAID, "tool_calls": [{**CALL, "type": "custom"}]}, "tool_calls[0].type"),
        ({**SAID, "tool_calls": [{**CALL, "x": 1}]}, "tool_calls[0].x"),
        (
            {**SAID, "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
            "tool_calls[0].function.arguments",
        ),
        (
            {**SAID, "tool_calls": [{"function": {"name": "f g", "arguments": ""}}]},
            "tool_calls[0].function.name",
        ),
    ],
)
def test_what_would_be_dropped_of_a_message_is_refused_by_name(
    message: dict[str, Any], param: str
) -> None:
    assert chat(message).param == f"messages[0].{param}"


def test_a_message_has_all_that_openais_client_sends_with_it() -> None:
    answer = {
        **{"role": "assistant", "content": None, "tool_calls": [{**CALL, "index": 0}]},
        **{"refusal": None, "annotations": [], "audio": None, "function_call": None},
    }
    body = {
        "model": "m",
        "messages": [answer, {"role": "tool", "tool_call_id": "c", "content": ""}],
    }
    messages = checked(ChatRequest, body).messages
    assert messages[0].given() == {"role": "assistant", "tool_calls": [CALL]}
    assert messages[1].given() == {"role": "tool", "tool_call_id": "c", "content": ""}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"method": {"type": "supervised", "supervised": {"x": 1}}}, "method.supervised.x"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"adapter": {"publish_if": {"metric": "a"}}}, "adapter.publish_if.better_than"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 0}}}},
            f"{HYPER}.n_epochs",
        ),
        ({"integrations": [1]}, "integrations"),
    ],
)
def test_a_field_of_a_job_has_its_whole_path(body: dict[str, Any], param: str) -> None:
    assert job(**body).param == param


def test_unknown_fields_are_unsupported_parameters() -> None:
    for model, body in [
        (CompletionRequest, {"prompt": "a"}),
        (EmbeddingsRequest, {"input": "a"}),
        (JobRequest, {"training_file": "f"}),
    ]:
        error = refused(model, **body, colour="red")
        assert isinstance(error, UnsupportedParameter)
        assert (error.param, error.message) == ("colour", "parameter 'colour' is not supported")


def test_a_body_that_is_no_object_names_no_class() -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked(CompletionRequest, [1])
    assert caught.value.param is None
    assert caught.value.message == "the body = a list: Input should be a valid object"


def test_long_values_and_names_are_cut() -> None:
    assert len(completion(stop="x" * 5000).message) < 200
    assert len(str(completion(logit_bias={"x" * 5000: 1}).param)) < 100
