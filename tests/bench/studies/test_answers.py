"""Greedy lines and label words of a trained causal LM."""

import json
from pathlib import Path

import pytest
import torch

import tiny
from bench.studies.answers import Asked, asked, label_figures, line_figures, rouge_l
from overtone_client import InvalidArgument
from trainer.base import LoadedBase, load


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> LoadedBase:
    return load(tiny.save_base(tmp_path_factory.mktemp("answers") / "llama"), "causal_lm", "tiny")


@pytest.mark.parametrize(
    ("got", "true", "value"),
    [
        ("Return the name.", "return the name.", 1.0),
        ("Return a name", "Return the long name", 4 / 7),
        ("", "Return the name.", 0.0),
        ("name the return", "return the name", 2 / 6),
    ],
)
def test_rouge_l_is_f1_of_the_longest_common_subsequence(got: str, true: str, value: float) -> None:
    assert rouge_l(got, true) == pytest.approx(value)


def test_a_chat_is_asked_as_it_is_trained(base: LoadedBase, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "ab"}]
    (tmp_path / "held.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    (chat,) = asked(tmp_path / "held.jsonl", base.reader)
    ids = base.reader.apply_chat_template(messages[:1], add_generation_prompt=True)["input_ids"]
    assert chat.prompt == list(ids)
    assert base.reader.decode([chat.first])[0] in "ab"


def test_padding_changes_no_answer(base: LoadedBase) -> None:
    generator = torch.Generator().manual_seed(0)
    chats = []
    for size in (3, 9, 17):
        prompt = torch.randint(5, 50, (size,), generator=generator).tolist()
        with torch.no_grad():
            logits = base.model(input_ids=torch.tensor([prompt])).logits[0, -1]
        first = int(logits[torch.tensor([5, 6, 7])].argmax()) + 5
        chats.append(Asked(prompt, first, str(first)))
    rest = [Asked(chats[0].prompt, other, str(other)) for other in (5, 6, 7)]
    wrong = [chat for chat in rest if chat.first != chats[0].first]
    assert label_figures(base.model, base.reader, [*chats, *wrong])["right"] == 3 / 5


def test_labels_that_begin_alike_are_refused(base: LoadedBase) -> None:
    chats = [Asked([5, 6], 7, "graphs"), Asked([5, 6], 7, "grids")]
    with pytest.raises(InvalidArgument, match="two begin with the same token"):
        label_figures(base.model, base.reader, chats)


def test_lines_are_compared_with_the_true_ones(base: LoadedBase) -> None:
    figures = line_figures(base.model, base.reader, [Asked([5, 6, 7], 8, "something else")])
    assert figures["exact"] == 0.0
    assert 0.0 <= figures["rouge_l"] < 1.0
