"""Rotations that change at a length: each row's follow its own text, as transformers' do alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from adapters_core.base.rotations import border_of
from running import Running
from server.adapters.modes import Mode
from server.engine.mask_patterns import UnsupportedAttention
from server.engine.rotations import rotate_by_rows
from server.scheduling.page_pool import PagePool
from server.scheduling.sequence import TokenSequence
from server_parts import (
    FOURIERFT,
    LORA,
    PAGE_SIZE,
    Given,
    Served,
    Store,
    given,
    greedy,
    prompt_of,
    torch_threads,
)

BORDER = 48
#: Prompts below, at and beyond the border; the third and the last grow over it.
LENGTHS = ((5, 4), (48, 1), (45, 10), (49, 5), (100, 5), (48, 4), (40, 45))
TOLERANCE = 1e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def served() -> Served:
    return Served(tiny.model("phi3"))


def generated(model: Any, sequence: TokenSequence) -> tuple[list[int], Tensor]:
    """Return transformers' own tokens and logits; it computes its cache anew at the border."""
    ids = torch.tensor([sequence.prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=sequence.sampling.max_tokens,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0].tolist(), torch.cat(out.logits)


def sequences(served: Served, adapters: list[Given | None], mode: Mode) -> list[TokenSequence]:
    return [
        TokenSequence(prompt_of(n, n), greedy(k), adapter and served.entry(adapter, mode))
        for (n, k), adapter in zip(LENGTHS, adapters, strict=True)
    ]


def adapters_of(served: Served) -> list[Given | None]:
    made: list[Given | None] = [
        given(served.spec, m, seed) for seed in (1, 2, 3) for m in (FOURIERFT, LORA)
    ]
    return [*made, None]


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("mode", ["factored", "merged"])
def test_texts_on_both_sides_of_the_border_answer_as_generate_does(
    mode: Mode, on_device: bool
) -> None:
    served = Served(tiny.model("phi3"), on_device=on_device)
    adapters = adapters_of(served)
    asked = sequences(served, adapters, mode)
    logits = served.run(asked, max_rows=37)
    for sequence, adapter in zip(asked, adapters, strict=True):
        tokens, true = generated(served.merged_copy(adapter), sequence)
        assert sequence.tokens == tokens
        assert (logits[sequence] - true).abs().max() < TOLERANCE


def test_the_border_changes_the_answer(served: Served) -> None:
    """Else the test above would prove nothing: short angles beyond it give other logits."""
    model: Any = tiny.model("phi3")
    ids = torch.tensor([prompt_of(60, 1)])
    long = model(ids).logits
    rotation = model.model.rotary_emb
    rotation.long_inv_freq = rotation.original_inv_freq.clone()
    assert (model(ids).logits - long).abs().max() > 0.1


def test_a_text_has_the_same_bits_alone_in_a_crowd_and_in_pieces(served: Served) -> None:
    adapters = adapters_of(served)
    leases = [adapter and served.entry(adapter, "factored") for adapter in adapters]

    def asked() -> list[TokenSequence]:
        pairs = zip(LENGTHS, leases, strict=True)
        return [TokenSequence(prompt_of(n, n), greedy(k), lease) for (n, k), lease in pairs]

    alone = [served.run([one])[one] for one in asked()]
    for max_rows in (16, 37, 500):
        crowd = asked()
        logits = served.run(crowd, max_rows=max_rows)
        for one, own in zip(crowd, alone, strict=True):
            assert torch.equal(logits[one], own)


def test_a_long_text_does_not_find_the_keys_of_a_short_one(served: Served) -> None:
    beginning = prompt_of(40, 3)
    asked = [TokenSequence(beginning + prompt_of(n, n), greedy(3)) for n in (0, 3, 30)]
    logits = [served.run([one])[one] for one in asked]
    together = [TokenSequence(one.prompt, greedy(3)) for one in asked]
    again = served.run(together, max_running=1)  # they share a cache of prefixes
    for one, other, own in zip(asked, together, logits, strict=True):
        assert one.tokens == other.tokens == generated(served.plain, one)[0]
        assert torch.equal(again[other], own)
    assert together[1].num_cached == PAGE_SIZE
    assert together[2].num_cached == 0


def test_a_long_text_that_loses_its_pages_answers_the_same(served: Served) -> None:
    asked = [TokenSequence(prompt_of(40, seed), greedy(60)) for seed in range(4)]
    served.run(asked, pool=PagePool(9, PAGE_SIZE))
    assert any(one.num_preempted for one in asked)
    for one in asked:
        assert one.tokens == generated(served.plain, one)[0]


def changed(**parameters: Any) -> Any:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0} | parameters
    return tiny.model("llama", max_position_embeddings=96, rope_parameters=rope)


def test_dynamic_rotations_do_not_move_within_the_base_s_length() -> None:
    served = Served(changed())
    one = TokenSequence(prompt_of(60, 1), greedy(36))
    logits = served.run([one, TokenSequence(prompt_of(5, 2), greedy(2))])[one]
    tokens, true = generated(served.plain, one)
    assert one.tokens == tokens
    assert (logits - true).abs().max() < TOLERANCE


def test_several_borders_are_refused() -> None:
    model: Any = tiny.model("phi3")
    parts = {name: dict(model.config.rope_parameters) for name in ("full", "sliding")}
    parts["full"]["original_max_position_embeddings"] = 64
    model.config.rope_parameters = parts
    with pytest.raises(ValueError, match=r"several lengths \(\[48, 64\]"):
        border_of(model)


def test_rotations_that_are_no_modules_are_refused() -> None:
    with pytest.raises(UnsupportedAttention, match="code of its own"):
        rotate_by_rows(nn.Linear(2, 2), BORDER, lambda: None)


def test_fixed_rotations_have_no_border() -> None:
    assert border_of(tiny.model("llama")) is None
    assert border_of(tiny.model("gpt2")) is None
    assert border_of(tiny.model("phi3")) == BORDER


def test_the_runtime_tells_its_sequences_the_border(served: Served, tmp_path: Path) -> None:
    running = Running(served.injection, served.engine, Store(tmp_path, served.spec))
    running.runtime.start()
    try:
        generation, heard = running.submit(46, max_tokens=8)
        tokens = heard.tokens()
    finally:
        running.runtime.stop()
        running.loader.close()
    true, _ = generated(served.plain, generation.sequence)
    assert tokens == true[46:]
