"""How requests' parameters decide the tokens, over HTTP."""

from typing import Any

import pytest

from live import BASE, Live

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
