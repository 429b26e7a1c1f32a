"""How requests' parameters decide the tokens, over HTTP."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spectra
import tiny
from live import BASE, Live
from server.api.callers import ANY_CALLER
from server.api.calls import completion_call
from server.api.completion_schemas import CompletionRequest
from server.api.sampling import samplings
from server.api.validation import checked
from server.base.load_errors import BaseNotLoadable
from server.base.sampling_defaults import sampling_defaults

DRAWN: dict[str, Any] = {"temperature": 1, "max_tokens": 12, "ignore_eos": True}


def choices(live: Live, prompt: Any = "Once", **params: Any) -> list[tuple[int, ...]]:
    """Return the token ids of every choice."""
    answer = live.complete(BASE, prompt, **{**DRAWN, **params})
    assert answer.status_code == 200, answer.text
    return [tuple(choice["token_ids"]) for choice in answer.json()["choices"]]


# Seeds


@pytest.mark.parametrize("seed", [-1, 0, 1, 2**63 - 1, -(2**63)])
def test_the_choices_of_a_seed_differ_and_are_the_same_again(live: Live, seed: int) -> None:
    first = choices(live, seed=seed, n=3)
    assert len(set(first)) == 3
    assert choices(live, seed=seed, n=3) == first
    assert choices(live, seed=seed) == first[:1]


def test_no_choice_of_one_seed_is_one_of_another(live: Live) -> None:
    found = [one for seed in range(-3, 4) for one in choices(live, seed=seed, n=4)]
    assert len(set(found)) == len(found)


def test_a_seed_gives_each_prompt_of_a_list_what_it_gives_it_alone(live: Live) -> None:
    together = choices(live, ["Once", "Twice"], seed=7, n=2)
    apart = [one for prompt in ("Once", "Twice") for one in choices(live, prompt, seed=7, n=2)]
    assert together == apart


def test_equal_prompts_without_a_seed_have_different_answers(live: Live) -> None:
    assert len(set(choices(live, ["Once"] * 4))) == 4


def test_the_choices_of_a_prompt_share_what_is_scored_of_it(live: Live) -> None:
    """A prompt of a hundred thousand tokens would cost seconds and gigabytes for 128 of them."""
    body = {"model": BASE, "prompt": [[5, 6, 7], [8, 9]], "n": 3, "prompt_logprobs": 1}
    call = completion_call(live.service, checked(CompletionRequest, body), ANY_CALLER)
    scored = [one.scored for one in samplings(call, live.service)]
    assert scored == [{0: 6, 1: 7}] * 3 + [{0: 9}] * 3
    assert len(set(map(id, scored))) == 2


# Parameters

#: Values that change nothing, as clients send them.
NEUTRAL: dict[str, Any] = {
    "top_k": -1,
    "top_p": 1,
    "min_p": 0,
    "typical_p": 1,
    "repetition_penalty": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "min_tokens": 0,
    "stop_token_ids": [],
    "logit_bias": {},
    "functions": [],
    "best_of": 1,
}


@pytest.mark.parametrize("temperature", [0, 1])
def test_neutral_values_change_nothing(live: Live, temperature: float) -> None:
    plain = choices(live, seed=5, temperature=temperature)
    assert choices(live, seed=5, temperature=temperature, **NEUTRAL) == plain
    nothing = dict.fromkeys(NEUTRAL)
    assert choices(live, seed=5, temperature=temperature, **nothing) == plain
    assert choices(live, seed=5, temperature=temperature, top_k=0) == plain


@pytest.mark.parametrize(
    "params",
    [
        {"top_k": 1},
        {"top_p": 1e-6},
        {"min_p": 1},
        {"typical_p": 1e-6},
        {"frequency_penalty": 2},
        {"presence_penalty": -2},
        {"repetition_penalty": 1.5},
        {"logit_bias": {"33": 100}},
    ],
)
def test_a_parameter_changes_what_is_drawn(live: Live, params: dict[str, Any]) -> None:
    plain = choices(live, seed=5, n=4, temperature=2)
    assert choices(live, seed=5, n=4, temperature=2, **params) != plain


def test_top_k_of_one_is_the_likeliest_token(live: Live) -> None:
    assert choices(live, top_k=1, temperature=2) == choices(live, temperature=0)


def test_penalties_count_the_answer_and_repetition_the_prompt_too(live: Live) -> None:
    likeliest = choices(live, [5, 6, 7], temperature=0, max_tokens=1)[0][0]
    seen, unseen = [likeliest, 6, 7], [5, 6, 7]

    def first(prompt: list[int], **params: Any) -> int:
        return choices(live, prompt, temperature=0, max_tokens=1, **params)[0][0]

    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}):
        assert first(unseen, **penalty) == first(unseen)
        assert first(seen, **penalty) == first(seen)
    penalised = choices(live, unseen, temperature=0, max_tokens=8, frequency_penalty=2)[0]
    plain = choices(live, unseen, temperature=0, max_tokens=8)[0]
    assert penalised[0] == plain[0]
    chosen = first(seen)
    assert first([chosen, 6, 7], repetition_penalty=1000) != chosen


def test_best_of_is_taken_where_all_choices_are_given(live: Live) -> None:
    wanted = choices(live, n=3, seed=4)
    assert choices(live, n=3, seed=4, best_of=3) == wanted
    refused = live.complete(BASE, n=2, best_of=3)
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == ("best_of", "unsupported_parameter")


# Ends


def test_a_stop_token_ends_an_answer_also_under_ignore_eos(live: Live) -> None:
    plain = choices(live, temperature=0)[0]
    stop = plain[4]
    answer = live.complete(BASE, **{**DRAWN, "temperature": 0, "stop_token_ids": [stop]})
    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert tuple(choice["token_ids"]) == plain[: plain.index(stop) + 1]


def test_no_end_is_chosen_before_min_tokens(live: Live) -> None:
    plain = choices(live, temperature=0)[0]
    (answer,) = choices(live, temperature=0, stop_token_ids=[plain[0]], min_tokens=5)
    assert plain[0] not in answer[:5]
    assert len(answer) >= 6 or len(answer) == DRAWN["max_tokens"]


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": 1.01}, "min_p"),
        ({"min_p": -0.1}, "min_p"),
        ({"typical_p": 0}, "typical_p"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"stop_token_ids": [999]}, "stop_token_ids"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids"),
        ({"stop_token_ids": list(range(300)), "min_tokens": 1}, "stop_token_ids"),
        ({"logit_bias": {"999": 1}}, "logit_bias"),
        ({"best_of": 0}, "best_of"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(
    live: Live, params: dict[str, Any], param: str
) -> None:
    answer = live.complete(BASE, **params)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert live.num_open == 0


def test_min_tokens_where_every_token_is_an_end_is_refused(live: Live) -> None:
    every = list(range(live.service.base.vocabulary))
    answer = live.complete(BASE, stop_token_ids=every, min_tokens=1)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "min_tokens"
    assert live.complete(BASE, stop_token_ids=every).json()["choices"][0]["finish_reason"] == "stop"


# What a request leaves out

CONFIG = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05, "min_p": 0.01}
#: Of these a response says what was taken.
TOLD = ("temperature", "top_p")
NONE = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
}


def configured(base_folder: Callable[[str], Path], copy: Path, **values: Any) -> Path:
    """Return a copy of the tiny base whose generation_config.json has these values."""
    shutil.copytree(base_folder("llama"), copy)
    path = copy / "generation_config.json"
    given = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(given | values))
    return copy


def defaults_of(live: Live, model: str) -> Any:
    return live.http.get(f"/v1/models/{model}").json()["overtone"]["sampling_defaults"]


def test_a_base_without_values_of_its_own_leaves_what_changes_nothing(live: Live) -> None:
    assert defaults_of(live, BASE) == NONE


def test_what_a_request_leaves_out_is_the_bases(
    live: Live,
    serve: Callable[..., Live],
    base_folder: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    source = configured(base_folder, tmp_path / "base", **CONFIG)
    own = serve(base=source)
    assert defaults_of(own, BASE) == NONE | CONFIG
    assert own.upload("mine", spectra.files(5)).status_code == 201
    assert defaults_of(own, "mine") == NONE | CONFIG
    left_out: dict[str, Any] = {"temperature": None, "seed": 5}
    assert choices(own, **left_out) == choices(live, seed=5, **CONFIG)
    body = {"model": BASE, "input": "Once", "max_output_tokens": 1}
    told = own.http.post("/v1/responses", json=body).json()
    assert {name: told[name] for name in TOLD} == {name: CONFIG[name] for name in TOLD}
    given = {"temperature": 1.5, "top_k": -1, "top_p": 1, "repetition_penalty": 1, "min_p": 0}
    assert choices(own, seed=5, **given) == choices(live, seed=5, temperature=1.5)


def test_the_setting_leaves_the_bases_values_out(
    serve: Callable[..., Live], base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    source = configured(base_folder, tmp_path / "base", **CONFIG, typical_p=-1)
    assert defaults_of(serve(base=source, generation_config=False), BASE) == NONE


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", -1), ("top_k", "many"), ("repetition_penalty", 0)]
)
def test_a_value_that_no_request_could_give_stops_the_start(name: str, value: Any) -> None:
    model = tiny.model("llama")
    setattr(model.generation_config, name, value)
    with pytest.raises(BaseNotLoadable, match=rf"{name} = .*--no-generation-config"):
        sampling_defaults(model)
