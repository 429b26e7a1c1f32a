"""The encoder's numbers: alone and in company, against transformers, factored and merged."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny_encoders as te
from encoder_parts import Injected, inputs_for
from server.base.loading import make_encoder
from server.base.pooling import Pooling
from server.encoding.encoder import group_of
from server.encoding.plan import Payload
from server_parts import torch_threads

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("shape", "threads"), [*((shape, 1) for shape in te.CLASSIFIERS), ("vit", 1), ("bert", 2)]
)
def test_an_answer_has_the_same_bits_alone_and_in_any_company(
    shape: str, threads: int, tmp_path: Path
) -> None:
    injected = Injected(te.base(shape))
    payloads: list[Payload] = [None]
    for number, config in enumerate(te.configs(shape, None, ["classifier"])):
        made = te.make(te.model(shape), config, tmp_path / str(number), number)
        payloads += [injected.payload(tmp_path / made.name, m) for m in (False, True)]
    inputs = inputs_for(shape, len(payloads))
    with torch_threads(threads):
        alone = [
            injected.run([given], [payload])[0]
            for given, payload in zip(inputs, payloads, strict=True)
        ]
        for picked in (range(9), range(8, -1, -1), range(3), (0, 1), (1, 3, 5), (1, 1, 2, 1, 1, 1)):
            got = injected.run([inputs[i] for i in picked], [payloads[i] for i in picked])
            for row, number in zip(got, picked, strict=True):
                assert torch.equal(row, alone[number])


def test_heads_of_several_widths_share_a_batch(tmp_path: Path) -> None:
    injected = Injected(te.base("bert"))
    widths, payloads, made = (5, 2, 3), [], []
    for number, width in enumerate(widths):
        config = te.configs("bert", "SEQ_CLS", None)[number]
        model = te.model("bert", num_labels=width)
        made.append(te.make(model, config, tmp_path / str(number), number))
        payloads.append(injected.payload(tmp_path / str(number)))
    inputs = inputs_for("bert", 3)
    for row, one, given, width in zip(
        injected.run(inputs, payloads), made, inputs, widths, strict=True
    ):
        assert row.shape == (width,)
        ids = torch.tensor([given])
        want = one.logits(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
        assert torch.allclose(row, want, atol=2e-5)


@pytest.mark.parametrize("length", [1, 15, 16, 17, te.MAX_LENGTH - 1, te.MAX_LENGTH])
def test_padding_changes_no_vector(length: int) -> None:
    model = te.model("roberta", is_embedder=True)
    plain = te.model("roberta", is_embedder=True)
    base = make_encoder(model, te.tokenizer(), "tiny", "embedder", Pooling())
    assert base.max_length == te.MAX_LENGTH
    (given,) = inputs_for("roberta", 1, length)
    (got,) = Injected(base).run([given], [None])
    with torch.inference_mode():
        hidden = plain(input_ids=torch.tensor([given])).last_hidden_state[0]
    assert torch.allclose(got, F.normalize(hidden.mean(0), dim=0), atol=1e-5)


@pytest.mark.parametrize("way", ["cls", "mean", "max", "lasttoken", "mean_sqrt_len_tokens"])
def test_pooling_reads_the_tokens_and_not_the_padding(way: Any) -> None:
    hidden = torch.randn(2, 5, 7)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    got = Pooling(way, normalize=False)(hidden, mask)
    for row, vectors, length in zip(got, hidden, (3, 5), strict=True):
        real = vectors[:length]
        want = {
            "cls": real[0],
            "mean": real.mean(0),
            "max": real.amax(0),
            "lasttoken": real[-1],
            "mean_sqrt_len_tokens": real.sum(0) / length**0.5,
        }[way]
        assert torch.allclose(row, want, atol=1e-6)


def test_a_full_text_and_a_padded_one_share_no_batch() -> None:
    short, full = ((1,) * (te.MAX_LENGTH - 1), (1,) * te.MAX_LENGTH)
    assert group_of(short, te.MAX_LENGTH) != group_of(full, te.MAX_LENGTH)
    assert group_of((1,) * 16, te.MAX_LENGTH).length == 32


@pytest.mark.parametrize("shape", [*te.CLASSIFIERS, "vit"])
def test_every_linear_of_the_usual_shapes_is_a_target(shape: str) -> None:
    model = te.model(shape)
    linears = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert list(te.base(shape, model).spec.targets) == linears
