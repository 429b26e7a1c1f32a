"""A linear behind the choice of rows gets each row's own adapter, whatever else is in the step."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import tiny
from adapters_core.base.causal_probe import with_causal_targets
from server.adapters.modes import Mode
from server.scheduling.sequence import TokenSequence
from server_parts import LORA, Given, Served, given, greedy, prompt_of

LENGTHS = (3, 45, 20)


@pytest.fixture(scope="module")
def served() -> Served:
    return Served(tiny.model("modernbert-decoder"))


@pytest.fixture(scope="module")
def adapters(served: Served) -> list[Given | None]:
    return [given(served.spec, LORA, 1), given(served.spec, LORA, 2), None]


def expected(served: Served, adapter: Given | None, tokens: list[int]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = served.merged_copy(adapter)(torch.tensor([tokens])).logits[0]
    return logits


@pytest.mark.parametrize("max_rows", [512, 24])
@pytest.mark.parametrize("modes", ["ff", "mm", "fm"])
def test_adapters_of_one_step_keep_their_own_head(
    served: Served, adapters: list[Given | None], modes: str, max_rows: int
) -> None:
    names: dict[str, Mode] = {"f": "factored", "m": "merged"}
    kinds: list[Mode] = [names[letter] for letter in modes]
    entries = [
        adapter and served.entry(adapter, kind)
        for adapter, kind in zip(adapters, [*kinds, "factored"], strict=True)
    ]
    prompts = [prompt_of(length, length) for length in LENGTHS]
    sequences = [
        TokenSequence(prompt, greedy(4), entry)
        for prompt, entry in zip(prompts, entries, strict=True)
    ]
    rows = served.run(sequences, max_rows=max_rows)
    for sequence, adapter, prompt in zip(sequences, adapters, prompts, strict=True):
        whole = expected(served, adapter, list(sequence.tokens))
        got = rows[sequence]
        torch.testing.assert_close(
            got, whole[len(prompt) - 1 : len(prompt) - 1 + len(got)], atol=1e-4, rtol=1e-4
        )


def test_the_head_makes_a_difference(served: Served, adapters: list[Given | None]) -> None:
    """Else the test above would prove nothing."""
    adapter = adapters[0]
    assert adapter is not None
    without = replace(
        adapter, layers={t: c for t, c in adapter.layers.items() if "lm_head" not in t}
    )
    tokens = list(prompt_of(12, 1))
    both = expected(served, adapter, tokens), expected(served, without, tokens)
    assert (both[0] - both[1]).norm() > 0.1 * both[1].norm()


def test_a_step_whose_linears_see_other_rows_raises_rather_than_mixing(
    adapters: list[Given | None],
) -> None:
    """What the probe at the start could not see is caught where it happens."""
    served = Served(tiny.model("modernbert-decoder"))
    assert with_causal_targets(served.spec, served.plain, 64).kept == {"lm_head.dense"}
    served.injection.linears["lm_head.dense"].sees_kept = False
    pair = [served.entry(a, "factored") for a in adapters[:2] if a is not None]
    sequences = [TokenSequence(prompt_of(9, i), greedy(2), entry) for i, entry in enumerate(pair)]
    with pytest.raises(RuntimeError, match=r"lm_head\.dense was given 4 rows in a step of 20"):
        served.run(sequences)
