"""The main proof: what PEFT has saved, uploaded as it is, answers over REST as PEFT itself does."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import tiny
from live import Live
from peft_made import KINDS, Made, make
from waiting import until

SHAPES = ("llama", "qwen3", "gpt2")
NUM_ADAPTERS = 32
NUM_TOKENS = 8
PROMPT = [79, 110, 99, 101, 32, 7, 200]
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """One base with its adapters, and PEFT's own answers to `PROMPT`."""

    shape: str
    adapters: list[Made]
    expected: list[list[int]]


@pytest.fixture(scope="module", params=SHAPES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder: Path = tmp_path_factory.mktemp(request.param)
    adapters = [make(request.param, i, folder / str(i)) for i in range(NUM_ADAPTERS)]
    return Case(request.param, adapters, [made.greedy(PROMPT, NUM_TOKENS) for made in adapters])


@pytest.fixture(scope="module", params=("factored", "merged"))
def server(request: pytest.FixtureRequest, case: Case, serve_all: Callable[..., Live]) -> Live:
    live = serve_all(case.shape, mode=request.param)
    for made in case.adapters:
        answer = live.upload(made.label, made.files)
        assert answer.status_code == 201, answer.text
    return live


def test_the_adapters_differ_from_the_base_and_from_each_other(case: Case, server: Live) -> None:
    base = server.tokens("tiny", PROMPT, max_tokens=NUM_TOKENS)
    distinct = {tuple(tokens) for tokens in [base, *case.expected]}
    assert len(distinct) > NUM_ADAPTERS * 0.9


@pytest.mark.parametrize("number", range(KINDS))
def test_log_probabilities_are_pefts(case: Case, server: Live, number: int) -> None:
    made = case.adapters[number]
    asked = {"max_tokens": NUM_TOKENS, "logprobs": 5, "ignore_eos": True}
    choice = server.complete(made.label, PROMPT, **asked).json()["choices"][0]
    tokens, logprobs = choice["token_ids"], choice["logprobs"]
    reference = made.logprobs(PROMPT + tokens)[len(PROMPT) - 1 : -1]
    for i, row in enumerate(reference):
        assert logprobs["token_logprobs"][i] == pytest.approx(float(row[tokens[i]]), abs=TOLERANCE)
    # A part of a character has no text of its own, so only the others are known by it.
    # The token that was drawn is among them, too.
    told = logprobs["top_logprobs"][0].items()
    alternatives = {text: value for text, value in told if not text.startswith("bytes:")}
    ids = {tiny.tokenizer().decode([i]): i for i in range(tiny.VOCABULARY)}
    best = reference[0].topk(5)
    assert {ids[text] for text in alternatives} <= {*best.indices.tolist(), tokens[0]}
    for text, value in alternatives.items():
        assert value == pytest.approx(float(reference[0][ids[text]]), abs=TOLERANCE)


@pytest.mark.parametrize("number", range(KINDS))
def test_greedy_tokens_are_pefts(case: Case, server: Live, number: int) -> None:
    name = case.adapters[number].label
    assert server.tokens(name, PROMPT, max_tokens=NUM_TOKENS) == case.expected[number]


def test_32_adapters_at_once_answer_as_each_does_alone(case: Case, server: Live) -> None:
    before = _steps_of_more_than_16_adapters(server)
    answers = asyncio.run(_ask_all_at_once(server, [made.label for made in case.adapters]))
    assert _steps_of_more_than_16_adapters(server) - before >= NUM_TOKENS - 2
    told = [answer.json()["choices"][0]["token_ids"] for answer in answers]
    equal = sum(a == b for a, b in itertools.zip_longest(told, case.expected))
    assert equal == NUM_ADAPTERS


def test_an_answer_says_which_upload_it_came_from(case: Case, server: Live) -> None:
    for made in case.adapters[:KINDS]:
        record = server.http.get(f"/v1/adapters/{made.label}").json()
        answer = server.complete(made.label, PROMPT)
        assert answer.json()["model"] == made.label
        assert answer.json()["overtone"] == {
            "adapter": made.label,
            "version": 1,
            "digest": record["digest"],
            "mode": server.settings.mode,
        }
        assert answer.headers["X-Overtone-Adapter"] == f"{made.label}@1 {record['digest']}"


def _steps_of_more_than_16_adapters(server: Live) -> float:
    few = server.metric('overtone_batch_adapters_bucket{le="16.0"}')
    return server.metric("overtone_batch_adapters_count") - few


async def _ask_all_at_once(server: Live, names: list[str]) -> list[httpx2.Response]:
    """Return the answers to one request a name; the engine starts when all have arrived."""
    fixed = {"max_tokens": NUM_TOKENS, "temperature": 0, "return_token_ids": True}
    async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http:

        def ask(name: str) -> Any:
            return http.post("/v1/completions", json={"model": name, "prompt": PROMPT, **fixed})

        with server.paused():
            waiting = [asyncio.ensure_future(ask(name)) for name in names]
            await asyncio.to_thread(until, lambda: server.num_open == len(names) + 1)
        answers: list[httpx2.Response] = await asyncio.gather(*waiting)
    return answers
