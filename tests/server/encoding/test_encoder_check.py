"""Bases that share linears among inputs, or read padding: served as PEFT computes, or refused."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import FourierFTConfig, LoraConfig
from torch import Tensor

import tiny_encoders as te
from encoder_parts import Injected, inputs_for
from server.base.loading import Base
from server.encoding.check import UnsupportedBase, check_encoder
from server.encoding.encoder import Encoder, Group, Input, group_of
from server.encoding.plan import Payload
from server_parts import torch_threads

OTHERS = (*te.SHARING, *te.READING_PADDING, "swinv2")
LENGTHS = (3, 9, 37, 90)
METHODS: dict[str, Any] = {
    "lora": lambda targets: LoraConfig(r=3, lora_alpha=5, target_modules=targets),
    "fourierft": lambda targets: FourierFTConfig(
        n_frequency=40, scaling=40.0, target_modules=targets
    ),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def checked(base: Base) -> Injected:
    injected = Injected(base)
    check_encoder(injected.encoder, injected.injection, base)
    return injected


def alone(made: te.Made, given: Input) -> Tensor:
    """Return PEFT's own answer for one input without padding."""
    if isinstance(given, Tensor):
        return made.logits(pixel_values=given[None])[0]
    ids = torch.tensor([given])
    return made.logits(input_ids=ids, attention_mask=torch.ones_like(ids))[0]


def fields(shape: str) -> dict[str, bool]:
    return {"shares": shape in (*te.SHARING, "swinv2"), "pads": shape not in te.READING_PADDING}


@pytest.mark.parametrize("shape", [*te.CLASSIFIERS, "vit", *OTHERS])
def test_what_a_base_shares_and_whether_it_reads_padding_is_found_at_the_start(shape: str) -> None:
    base = te.base(shape)
    injected = checked(base)
    assert {"shares": bool(base.spec.shared), "pads": base.spec.pads} == fields(shape)
    assert set(injected.injection.linears) == set(base.spec.targets)
    assert not base.spec.left_out


@pytest.mark.parametrize("is_merged", [False, True], ids=["factored", "merged"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", OTHERS)
def test_adapters_on_all_linears_answer_as_peft_does(
    shape: str, method: str, is_merged: bool, tmp_path: Path
) -> None:
    injected = Injected(te.base(shape))
    model = te.other(shape)
    made = te.make(model, METHODS[method]("all-linear"), tmp_path / "all", 1)
    payload = injected.payload(tmp_path / "all", is_merged)
    for length in LENGTHS[:1] if shape == "swinv2" else LENGTHS:
        # Batches of three: what all share does not divide by that.
        for batch in _batches(injected, inputs_for(shape, 3, length)):
            got = injected.run(batch, [payload] * len(batch), owner="all")
            for row, given in zip(got, batch, strict=True):
                assert torch.allclose(row, alone(made, given), atol=5e-5)


@pytest.mark.parametrize("is_merged", [False, True], ids=["factored", "merged"])
@pytest.mark.parametrize("shape", OTHERS)
def test_adapters_on_other_linears_are_mixed_in_one_batch(
    shape: str, is_merged: bool, tmp_path: Path
) -> None:
    injected = Injected(te.base(shape))
    made: list[te.Made] = []
    payloads: list[Payload] = []
    for number, method in enumerate(METHODS):
        config = METHODS[method](injected.spec.usual)
        made.append(te.make(te.other(shape), config, tmp_path / method, number))
        payloads.append(injected.payload(tmp_path / method, is_merged))
    base = te.other(shape)
    for length in (4, 21):
        for batch in _batches(injected, inputs_for(shape, 5, length)):
            who: list[int | None] = [(0, None, 1)[i % 3] for i in range(len(batch))]
            given_payloads = [None if i is None else payloads[i] for i in who]
            got = injected.run(batch, given_payloads)
            for row, given, i in zip(got, batch, who, strict=True):
                want = (
                    alone(te.Made("", {}, base), given)  # type: ignore[arg-type]
                    if i is None
                    else alone(made[i], given)
                )
                assert torch.allclose(row, want, atol=5e-5)


def _batches(injected: Injected, inputs: list[Input]) -> list[list[Input]]:
    groups: dict[Group, list[Input]] = {}
    for given in inputs:
        key = group_of(given, injected.max_length, injected.spec.pads)
        groups.setdefault(key, []).append(given)
    return list(groups.values())


@pytest.mark.parametrize("shape", te.READING_PADDING)
def test_a_text_has_no_padding_where_the_base_would_read_it(shape: str) -> None:
    injected = checked(te.base(shape))
    five, six = (1,) * 5, (1,) * 6
    assert group_of(five, te.MAX_LENGTH, pads=False) != group_of(six, te.MAX_LENGTH, pads=False)
    assert group_of(five, te.MAX_LENGTH, pads=False).length == 5
    got = injected.run([five, five], [None, None])
    assert torch.allclose(got[0], got[1])


@pytest.mark.parametrize("shape", ["fnet", "convbert"])  # of phi3 the config says it
def test_a_base_that_would_be_answered_wrongly_is_refused(shape: str) -> None:
    base = te.base(shape)
    padding = replace(base, spec=replace(base.spec, pads=True))  # as if the probe had missed it
    with pytest.raises(UnsupportedBase, match="in a batch of 5, differs by .* that input alone"):
        checked(padding)


def test_an_encoder_that_mixes_adapters_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Encoder.run

    def swapped(self: Encoder, inputs: Any, group: Group, payloads: list[Payload]) -> list[Tensor]:
        return real(self, inputs, group, payloads[::-1])

    monkeypatch.setattr(Encoder, "run", swapped)
    with pytest.raises(UnsupportedBase, match="with an adapter"):
        checked(te.base("bert"))


def test_a_linear_whose_rows_are_shared_and_that_the_probe_missed_is_refused() -> None:
    base = te.base("deberta-v2")
    missed = replace(base, spec=replace(base.spec, shared=frozenset()))
    with pytest.raises((UnsupportedBase, RuntimeError), match="rows in a batch|differs by"):
        checked(missed)
