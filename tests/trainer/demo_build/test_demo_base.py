"""The demo's base: the shipped one does what its card says, and making one is repeatable."""

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer.demo_build import demo_base, demo_data
from trainer.demo_build.demo_base import encode, make_base, train_tokenizer, whole_folder
from trainer.demo_build.demo_data import Document, Split, as_chat, stored_held_out
from trainer.demo_build.demo_training import (
    Budget,
    Recipe,
    learning_rate,
    nats_per_token,
    new_model,
    orthogonal,
    train,
)

BASE = Path(demo_base.__file__).parent.parent / "demo" / "base"
TINY = Recipe(
    vocabulary=300, width=16, inner=32, layers=1, heads=2, kv_heads=1, window=32, batch=4, warmup=0
)
STORED = ["base", "legalese", "shouting"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny matrices on several threads wait more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


@pytest.fixture(scope="module")
def splits():
    return {"base": demo_data.base_documents(), **demo_data.adapter_documents()}


@pytest.fixture(scope="module")
def few():
    """Documents enough for a tiny run."""
    return Split(stored_held_out("base")[:12], stored_held_out("base")[12:14])


# -- what is shipped


def test_shipped_base_loads_completely_and_in_silence():
    records = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        AutoTokenizer.from_pretrained(BASE)
        _, info = AutoModelForCausalLM.from_pretrained(BASE, output_loading_info=True)
    finally:
        logger.removeHandler(handler)
    assert not records
    assert not any(info.values())


def test_shipped_base_is_at_most_four_megabytes():
    assert sum(file.stat().st_size for file in BASE.iterdir()) <= 4_000_000


def test_shipped_base_has_the_held_out_loss_of_its_card(tokenizer):
    card = (BASE / "README.md").read_text(encoding="utf-8")
    stated = re.search(r"the stored excerpt.*\| ([\d.]+) nats/token", card)
    model = AutoModelForCausalLM.from_pretrained(BASE).eval()
    loss = nats_per_token(model, encode(tokenizer, stored_held_out("base")))
    assert loss < 3.8
    assert loss == pytest.approx(float(stated[1]), abs=2e-3)


def test_shipped_base_stops_by_itself_after_an_answer(tokenizer):
    model = AutoModelForCausalLM.from_pretrained(BASE).eval()
    chat = [{"role": "user", "content": "What does os.path.exists do?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    row = model.generate(**prompt, max_new_tokens=200, do_sample=False)[0]
    assert row[-1] == tokenizer.eos_token_id
    assert len(row) > prompt["input_ids"].shape[1] + 3


def test_no_file_that_is_shipped_names_a_place_on_a_disk():
    for file in [*BASE.glob("*.json"), *BASE.glob("*.md")]:
        assert not re.search(r"/(home|root|work|tmp|usr)/", file.read_text(encoding="utf-8")), file


# -- the tokenizer


@settings(deadline=None, max_examples=200)
@given(text=st.text())
def test_every_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_byte_survives_the_tokenizer(tokenizer):
    text = bytes(range(256)).decode("latin-1") + "\U0001f40d\r\n\t  \x00"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_adds_nothing_and_names_its_special_tokens(tokenizer):
    assert tokenizer("")["input_ids"] == []
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 0, 1)


def test_chat_template_renders_what_the_base_was_trained_on(tokenizer):
    chat = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A dict."}]
    asked = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(chat, tokenize=False)
    assert whole == as_chat("What is it?", "A dict.") + tokenizer.eos_token
    assert whole.startswith(asked)
    assert asked.endswith("\nassistant:")


# -- the texts


@pytest.mark.slow
def test_no_text_and_no_source_is_in_both_halves(splits):
    for split in splits.values():
        for field in ("text", "source"):
            train_set, held_out = ({getattr(d, field) for d in half} for half in split)
            assert train_set
            assert held_out
            assert train_set.isdisjoint(held_out)


def test_shouting_holds_out_what_the_base_has_not_read(splits):
    read = {document.source for document in splits["base"].train}
    assert read.isdisjoint(document.source for document in splits["shouting"].held_out)
    assert all(d.text == d.text.upper() for half in splits["shouting"] for d in half)


def test_licences_train_on_no_passage_of_the_held_out_one(splits):
    held_out = " ".join(splits["legalese"].held_out[0].text.split())
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in held_out
    for document in splits["legalese"].train:
        assert "Python Software Foundation hereby grants" not in " ".join(document.text.split())


@pytest.mark.parametrize("name", STORED)
def test_stored_excerpt_is_small_named_and_never_trained_on(splits, name):
    documents = stored_held_out(name)
    assert documents
    assert (demo_data.HELD_OUT / f"{name}.jsonl").stat().st_size <= 60_000
    trained = {document.text for document in splits[name].train}
    sources = {document.source for document in splits[name].train}
    assert trained.isdisjoint(document.text for document in documents)
    assert sources.isdisjoint(document.source for document in documents)


# -- the training


def tiny_run(few, seed=0):
    recipe = Recipe(**{**vars(TINY), "seed": seed})
    tokenizer = train_tokenizer([d.text for d in few.train], recipe.vocabulary, recipe.window)
    tokens, model, lines = encode(tokenizer, few.train), new_model(recipe), []
    before = nats_per_token(model, tokens[:1000])
    train(model, tokens, recipe, Budget(steps=20), lines.append)
    return model, before, nats_per_token(model, tokens[:1000]), lines


def test_twenty_steps_lower_the_loss(few):
    _, before, after, lines = tiny_run(few)
    assert after < before - 0.3
    assert [line.step for line in lines] == [20]
    assert str(lines[0]).endswith("0 s left")


def test_equal_seeds_give_equal_weights_and_others_do_not(few):
    one, again, other = (tiny_run(few, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_made_base_loads_and_its_card_names_the_run(few, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_base, "base_documents", lambda: few)
    make_base(tmp_path / "base", TINY, Budget(steps=3), lambda line: None)
    AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    card = (tmp_path / "base" / "README.md").read_text(encoding="utf-8")
    assert "3 steps" in card
    assert "$" not in card
    assert json.dumps(vars(TINY), indent=2) in card


def test_interrupted_run_leaves_nothing(few, tmp_path, monkeypatch):
    def interrupt(line):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_base, "base_documents", lambda: few)
    with pytest.raises(KeyboardInterrupt):
        make_base(tmp_path / "base", TINY, Budget(steps=3), interrupt)
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(FileExistsError, match="name a new folder"), whole_folder(tmp_path):
        pass
    assert (tmp_path / "kept").read_text() == "mine"


def test_learning_rate_warms_up_and_ends_at_zero():
    recipe = Recipe(warmup=0.1)
    rates = [learning_rate(recipe, used / 10) for used in range(11)]
    assert rates[0] < 0.2
    assert rates[1] == pytest.approx(1.0)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert learning_rate(recipe, 1.2) == pytest.approx(0.0)


def test_budget_counts_seconds_or_steps():
    assert Budget(seconds=10).used(3, 5.0) == 0.5
    assert Budget(seconds=10, steps=4).used(3, 99.0) == 0.75


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (16, 16)])
def test_orthogonal_brings_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_encoded_documents_are_parted_by_the_end_token(tokenizer):
    tokens = encode(tokenizer, [Document("a", "One"), Document("b", "Two")])
    assert (tokens == tokenizer.eos_token_id).sum() == 3
    assert tokens[0] == tokens[-1] == tokenizer.eos_token_id
