"""Adapters of the output layer: each sampled row gets its own, alone or in any crowd."""

import copy

import pytest
import torch
from torch import Tensor

import tiny
from adapters_core.layers.basis_cache import BasisCache
from made import CPU, random_adapter
from server.adapters.modes import Mode
from server.scheduling.sequence import TokenSequence
from server_parts import LORA, Given, Served, given, greedy, prompt_of

LENGTHS = (3, 45, 20, 7)
SHAPES = ("llama", "gpt2")


@pytest.fixture(scope="module", params=SHAPES)
def served(request: pytest.FixtureRequest) -> Served:
    return Served(tiny.model(request.param))


def of_head(served: Served, seed: int) -> Given:
    """Return an adapter of the output layer and of the last layer below it."""
    names = ["lm_head", list(served.spec.targets)[-1]]
    shapes = {name: served.spec.layers[name] for name in names}
    return Given(*random_adapter(LORA, shapes, BasisCache(CPU), seed, 0.2))


@pytest.fixture(scope="module")
def adapters(served: Served) -> list[Given | None]:
    """Two of the output layer, one that leaves it alone, and none."""
    return [of_head(served, 1), of_head(served, 2), given(served.spec, LORA, 3), None]


def expected(served: Served, adapter: Given | None, tokens: list[int]) -> Tensor:
    """Return a plain copy's logits; a tied embedding stays as it is, as in PEFT."""
    model = copy.deepcopy(served.plain)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    for target, layer in (adapter.layers if adapter else {}).items():
        assert adapter is not None
        delta = adapter.methods[target].delta(layer, served.spec.layers[target], None)
        weight = model.get_submodule(target).weight
        weight.data += (
            delta
            if weight.shape == delta.shape and target == "lm_head"
            else (delta.T if "transformer" in target else delta)
        )
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([tokens])).logits[0]
    return logits


def run(
    served: Served, adapters: list[Given | None], modes: str, max_rows: int = 512
) -> list[tuple[TokenSequence, Tensor]]:
    names: dict[str, Mode] = {"f": "factored", "m": "merged"}
    sequences = []
    for adapter, mode, length in zip(adapters, modes, LENGTHS, strict=True):
        entry = served.entry(adapter, names[mode]) if adapter else None
        sequences.append(TokenSequence(prompt_of(length, length), greedy(4), entry))
    rows = served.run(sequences, max_rows=max_rows)
    return [(sequence, rows[sequence]) for sequence in sequences]


@pytest.mark.parametrize("max_rows", [512, 24])
@pytest.mark.parametrize("modes", ["fff-", "mmm-", "fmf-", "mff-"])
def test_every_sequence_gets_its_own_output_layer(
    served: Served, adapters: list[Given | None], modes: str, max_rows: int
) -> None:
    for (sequence, got), adapter in zip(
        run(served, adapters, modes, max_rows), adapters, strict=True
    ):
        whole = expected(served, adapter, list(sequence.tokens))
        start = len(sequence.tokens) - len(got) - 1
        torch.testing.assert_close(got, whole[start : start + len(got)], atol=1e-4, rtol=1e-4)


def test_its_bits_do_not_depend_on_neighbours(served: Served, adapters: list[Given | None]) -> None:
    """Single tokens and prompts alike: every sampled row is a row of its own."""
    crowd = run(served, adapters, "fff-")
    for (_, together), adapter, length in zip(crowd, adapters, LENGTHS, strict=True):
        entry = served.entry(adapter, "factored") if adapter else None
        alone = TokenSequence(prompt_of(length, length), greedy(4), entry)
        assert torch.equal(served.run([alone])[alone], together)


def test_the_output_layer_makes_a_difference(served: Served) -> None:
    adapter = of_head(served, 1)
    without = Given(adapter.methods, {t: c for t, c in adapter.layers.items() if t != "lm_head"})
    tokens = list(prompt_of(12, 1))
    both = expected(served, adapter, tokens), expected(served, without, tokens)
    assert (both[0] - both[1]).norm() > 0.1 * both[1].norm()


def test_a_base_says_what_its_output_layer_is(served: Served) -> None:
    assert list(served.spec.outputs) == ["lm_head"]
    assert "lm_head" not in served.spec.targets
    assert set(served.spec.layers) == {*served.spec.targets, *served.spec.lookups, "lm_head"}
    weight = served.plain.lm_head.weight
    assert served.spec.embeddings["lm_head"].is_same(weight, weight.dtype)
