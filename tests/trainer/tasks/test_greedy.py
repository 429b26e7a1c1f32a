"""A sample's tokens are the likeliest ones, whatever cache the base has."""

import pytest
import torch

import tiny
from trainer.tasks.greedy import greedy

PROMPT = [5 + 7 * place % 250 for place in range(60)]  # longer than every tiny base's window
MOST = 6


@pytest.mark.parametrize("shape", [*tiny.SHAPES, *tiny.MASKED_SHAPES, *tiny.OWN_SHAPES])
def test_the_cache_changes_no_token(shape: str) -> None:
    model, ids = tiny.model(shape), list(PROMPT)
    with torch.no_grad():
        found, ending = greedy(model, PROMPT, frozenset(), MOST, lambda: True)
        for _ in range(MOST):
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
    assert (found, ending) == (ids[len(PROMPT) :], "length")


@torch.no_grad()
def test_an_answer_ends_at_a_stop_or_when_it_is_told_to() -> None:
    model = tiny.model("llama")
    whole, _ = greedy(model, PROMPT, frozenset(), MOST, lambda: True)
    stop = whole[3]
    assert greedy(model, PROMPT, {stop}, MOST, lambda: True) == (whole[: whole.index(stop)], "stop")
    left = iter([True, True, False])
    assert greedy(model, PROMPT, frozenset(), MOST, lambda: next(left)) == (whole[:2], "time")
