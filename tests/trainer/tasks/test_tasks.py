"""What models read and learn of a record, by task."""

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import tiny
import tiny_encoders
from adapters_core.base.heads import clear_untrained
from adapters_core.base.spec import fingerprint
from adapters_core.format.read import read_adapter
from registry.jobs.spec import METRICS, Hyperparameters
from small_jobs import Watcher, files_of, job, lines, lm_base
from trainer.base import LoadedBase, load, make
from trainer.errors import BaseNotLoadable, InvalidMethod, InvalidTrainingFile
from trainer.interfaces import JobFiles, Reporter
from trainer.tasks.causal_lm import IGNORED, CausalLM, keeps_positions, keeps_texts_apart
from trainer.tasks.choice import task_of
from trainer.tasks.task import Example, Score, TextLimits
from trainer.training.run import run_job

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lm(max_length: int = 100, cuts: bool = False, packs: bool = True) -> CausalLM:
    return CausalLM(tiny.tokenizer(), TextLimits(max_length, cuts), packs)


def learned(example: Example) -> str:
    """Return the text that an example's targets spell, its end as `$`."""
    tokens = [target for target in example.targets if target != IGNORED]
    return tiny.tokenizer().decode(tokens).replace("<eos>", "$")


def read(example: Example) -> str:
    return tiny.tokenizer().decode(list(example.ids)).replace("<eos>", "$")


def test_of_a_text_everything_is_learned() -> None:
    example = lm().example({"text": "abc"})
    assert (read(example), learned(example)) == ("abc$", "bc$")


def test_of_a_prompt_with_completion_only_the_completion_is_learned() -> None:
    example = lm().example({"prompt": "two?", "completion": " 2"})
    assert (read(example), learned(example)) == ("two? 2$", " 2$")
    alone = lm().example({"prompt": "", "completion": "2"})
    assert (read(alone), learned(alone)) == ("$2$", "2$")


def test_of_a_chat_only_the_answers_are_learned() -> None:
    said = [("user", "a?"), ("assistant", "b"), ("user", "c?"), ("assistant", "d")]
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in said]
    example = lm().example({"messages": messages})
    assert learned(example) == "b$d$"
    # This template writes a blank before an answer that was not asked for: two texts.
    asked = "user: a?\nassistant:", "user: a?\nassistant: b\nuser: c?\nassistant:"
    assert read(example) == f"{asked[0]}b${asked[1]}d$"
    assert list(example.starts) == [0, len(asked[0]) + 2]
    messages[1]["weight"] = 0
    assert read(lm().example({"messages": messages})) == f"{asked[1]}d$"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "expected `messages`"),
        ({"label": 3}, "`label`"),
        ({"text": 3}, "no text under `text`"),
        ({"text": ""}, "empty"),
        ({"prompt": "x"}, "`completion`"),
        ({"prompt": "x", "completion": ""}, "empty"),
        ({"messages": []}, "no list"),
        ({"messages": [{"role": "user"}]}, "number 1"),
        ({"messages": [{"role": "user", "content": "x"}]}, "assistant"),
        ({"messages": [{"role": "assistant", "content": "x", "weight": 2}]}, "weight"),
        ({"text": "x" * 101}, "set max_length"),
    ],
)
def test_a_record_that_fits_no_form_says_what_is_wrong(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lm().example(row)


def test_a_chat_needs_a_template() -> None:
    messages = [{"role": r, "content": "x"} for r in ("user", "assistant", "user", "assistant")]
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        CausalLM(tokenizer, TextLimits(100), True).example({"messages": messages})


def test_what_is_too_long_is_cut_where_a_job_allows_it() -> None:
    example = lm(5, cuts=True).example({"text": "abcdefgh"})
    assert (read(example), example.num_cut) == ("abcde", 4)
    with pytest.raises(ValueError, match="nothing to learn within its first"):
        lm(5, cuts=True).example({"prompt": "abcdefgh", "completion": "i"})


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_packed_texts_have_the_loss_of_texts_alone(shape: str) -> None:
    model = tiny.model(shape).requires_grad_(False)
    assert keeps_texts_apart(model, tiny.VOCABULARY)
    texts = ["a", "something longer than that", "bb", "three words here", "z" * 45]
    task = lm()
    examples = [task.example({"text": text}) for text in texts]
    packed = task.batch(examples, CPU)
    assert len(packed.inputs["input_ids"]) < len(texts)
    alone = [task.loss(model, task.batch([one], CPU))[0] for one in examples]
    loss, logits = task.loss(model, packed)
    assert float(loss) == pytest.approx(float(sum(alone)), rel=1e-5)
    assert len(logits) == sum(one.num_trained for one in examples)
    unpacked, _ = task.loss(model, lm(packs=False).batch(examples, CPU))
    assert float(unpacked) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("packs", [True, False])
def test_texts_on_both_sides_of_a_rotations_border_have_the_loss_of_each_alone(packs: bool) -> None:
    base = lm_base("phi3")
    task = task_of("causal_lm", base, Hyperparameters(packing=packs), Reporter())
    texts = ["a", "x" * 46, "long " * 10, "bb", "y" * 47, "z" * 48, "longer " * 12, "three words"]
    examples = [task.example({"text": text}) for text in texts]
    sizes = {len(one.ids) for one in examples}
    assert min(sizes) < 48 < max(sizes)  # the border is at 48 tokens
    assert sizes & {47, 48, 49}
    expected = 0.0
    for one in examples:
        ids = torch.tensor([list(one.ids)])
        expected += float(base.model(ids, labels=ids).loss) * one.num_trained
    batch = task.batch(examples, CPU)
    assert (len(batch.expected) < len(texts)) == packs
    loss, logits = task.loss(base.model, batch)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    score = Score()
    task.collect(score, loss, logits, batch)
    right = [
        int(
            (
                base.model(torch.tensor([list(one.ids)])).logits[0, :-1].argmax(-1)
                == torch.tensor(list(one.ids)[1:])
            ).sum()
        )
        for one in examples
    ]
    assert task.metrics(score)["accuracy"] == pytest.approx(sum(right) / score.count)


def test_a_token_beyond_the_bases_vocabulary_names_the_line_and_the_token() -> None:
    base = lm_base()
    base.reader.add_tokens(["<new>"])
    task = task_of("causal_lm", base, Hyperparameters(), Reporter())
    with pytest.raises(ValueError, match=rf"cannot read: id {tiny.VOCABULARY}, where its vocab"):
        task.example({"text": "a <new> one"})
    assert read(task.example({"text": "an old one"})) == "an old one$"


def test_a_base_that_mixes_packed_texts_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    base = lm_base()
    watcher = Watcher()
    monkeypatch.setattr("trainer.tasks.choice.keeps_texts_apart", lambda model, vocabulary: False)
    task = task_of("causal_lm", base, Hyperparameters(), watcher)
    batch = task.batch([task.example({"text": "a"})] * 3, CPU)
    assert batch.inputs["input_ids"].shape[0] == 3
    assert "not packed" in watcher.events[0][1]


@pytest.mark.parametrize("shape", tiny.SHAPES)
def test_the_head_computes_only_positions_with_something_to_learn(shape: str) -> None:
    model = tiny.model(shape).requires_grad_(False)
    assert keeps_positions(model, tiny.VOCABULARY)
    rows = [
        {"prompt": "a long prompt of many", "completion": "x"},
        {"prompt": "b", "completion": "yz"},
        {"text": "all of it"},
        {"prompt": "c" * 30, "completion": "d"},
    ]
    whole = lm(packs=False)
    some = CausalLM(tiny.tokenizer(), TextLimits(100), False, keeps_positions=True)
    batch = whole.batch([whole.example(row) for row in rows], CPU)
    seen = list[tuple[int, ...]]()
    head = model.get_output_embeddings()
    with_hook = head.register_forward_pre_hook(lambda head, given: seen.append(given[0].shape))
    losses = [task.loss(model, batch) for task in (whole, some)]
    with_hook.remove()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    learned = int((batch.expected != IGNORED).any(0).sum())
    assert seen[0][1] == batch.expected.shape[1]
    assert seen[1][1] == learned < seen[0][1]


def test_a_base_that_cannot_be_told_positions_computes_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = lm_base()
    forward = base.model.forward

    def without(input_ids: Any, position_ids: Any = None, use_cache: bool = False) -> Any:
        return forward(input_ids=input_ids, position_ids=position_ids, use_cache=use_cache)

    expected = _loss_of(base)
    monkeypatch.setattr(base.model, "forward", without)
    assert not keeps_positions(base.model, tiny.VOCABULARY)
    assert _loss_of(base) == pytest.approx(expected, rel=1e-5)


def _loss_of(base: LoadedBase) -> float:
    task = task_of("causal_lm", base, Hyperparameters(), Reporter())
    example = task.example({"prompt": "hello there", "completion": "you"})
    return float(task.loss(base.model, task.batch([example], CPU))[0])


def test_the_loss_is_transformers_own() -> None:
    base = lm_base()
    task = lm()
    example = task.example({"text": "hello there"})
    loss, logits = task.loss(base.model, task.batch([example], CPU))
    ids = torch.tensor([example.ids])
    expected = base.model(input_ids=ids, labels=ids).loss
    assert float(loss) / example.num_trained == pytest.approx(float(expected), rel=1e-5)
    score = Score()
    task.collect(score, loss, logits, task.batch([example], CPU))
    metrics = task.metrics(score)
    assert set(metrics) == set(METRICS["causal_lm"])
    assert metrics["eval_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(float(expected)), rel=1e-5)


# -- labels ----------------------------------------------------------------------------------------


def encoder_base(shape: str, task: str = "sequence_classification") -> LoadedBase:
    untrained = [n for n, _ in tiny_encoders.model(shape).named_parameters() if "classifier" in n]
    model = tiny_encoders.model(shape)
    clear_untrained(model, untrained)
    return make(model, tiny_encoders.tokenizer(), "tiny", task, untrained)


def colours(path: Path, count: int = 60, **labels: Any) -> Path:
    names = ("red", "green", "blue")
    return lines(
        path,
        (
            {"text": f"{i} {names[i % 3] * 3}", "label": labels.get("of", str)(names[i % 3])}
            for i in range(count)
        ),
    )


@pytest.mark.parametrize("shape", tiny_encoders.CLASSIFIERS)
def test_a_classifier_learns_with_a_head_of_its_own(shape: str, tmp_path: Path) -> None:
    base = encoder_base(shape)
    before = fingerprint(base.model)
    spec = job(base, "sequence_classification", n_epochs=4, method="lora", method_config={})
    files = JobFiles(colours(tmp_path / "a"))
    done = run_job(spec, base, files, tmp_path / "job", Watcher())
    assert done.labels == ("blue", "green", "red")
    assert done.metrics["accuracy"] > 0.8
    assert set(done.base_metrics) == set(METRICS["sequence_classification"])
    assert set(done.metrics) == {*METRICS["sequence_classification"], "train_loss"}
    config = (tmp_path / "job" / "adapter_config.json").read_bytes()
    adapter = read_adapter(tmp_path / "job" / "adapter_model.safetensors", config, base.spec)
    assert adapter.head is not None
    assert adapter.head.num_labels == 3
    assert adapter.labels == ["blue", "green", "red"]
    assert fingerprint(base.model) == before
    run_job(spec, base, files, tmp_path / "again", Reporter())
    assert files_of(tmp_path / "again") == files_of(tmp_path / "job")


def test_a_regression_learns_a_number(tmp_path: Path) -> None:
    base = encoder_base("bert", "regression")
    rows = ({"text": "x" * (1 + i % 7), "label": (i % 7) / 7} for i in range(70))
    spec = job(base, "regression", n_epochs=6, method="lora", method_config={})
    done = run_job(spec, base, JobFiles(lines(tmp_path / "a", rows)), tmp_path / "job", Watcher())
    assert done.labels is None
    assert set(done.base_metrics) == set(METRICS["regression"])
    assert done.metrics["pearson"] > 0.8
    assert done.metrics["eval_loss"] < done.base_metrics["eval_loss"]


def test_images_of_digits_are_told_apart(tmp_path: Path) -> None:
    digits = load_digits()
    with zipfile.ZipFile(tmp_path / "digits.zip", "w") as out:
        for number in range(240):
            if digits.target[number] < 4:
                picture = io.BytesIO()
                pixels = (digits.images[number] * 15.9).astype("uint8")
                Image.fromarray(pixels).resize((32, 32)).save(picture, "png")
                out.writestr(f"{digits.target[number]}/{number}.png", picture.getvalue())
    folder = tiny_encoders.save(tmp_path / "vit", "vit")
    base = load(folder, "image_classification")
    spec = job(base, "image_classification", n_epochs=6, method="lora", method_config={})
    done = run_job(spec, base, JobFiles(tmp_path / "digits.zip"), tmp_path / "job", Watcher())
    assert done.labels == ("0", "1", "2", "3")
    assert set(done.base_metrics) == set(METRICS["image_classification"])
    assert done.metrics["accuracy"] > done.base_metrics["accuracy"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "x", "label": 0.5}] * 3, "expected a text or an integer"),
        ([{"text": "x"}] * 3, "no `label`"),
        ([{"text": "x", "label": "a"}] * 3, "one label only"),
        ([{"text": "x", "label": "a" * 300}] * 3, "300 characters"),
        ([{"label": "a"}] * 3, "no text"),
        ([{"text": "x" * 200, "label": "a"}] * 3, "takes 96"),
        ([{"text": "x", "label": f"{i:0200}"} for i in range(150)], "use shorter names"),
    ],
)
def test_labels_that_do_not_fit_are_named(
    rows: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    base = encoder_base("bert")
    spec, watcher = job(base, "sequence_classification"), Watcher()
    with pytest.raises(InvalidTrainingFile, match=said):
        run_job(spec, base, JobFiles(lines(tmp_path / "a", rows)), tmp_path / "job", watcher)
    assert watcher.events == []  # it was never called valid


def test_a_label_that_training_does_not_know_is_a_fault_of_the_validation_file(
    tmp_path: Path,
) -> None:
    base = encoder_base("bert")
    other = lines(tmp_path / "b", [{"text": "x", "label": "red"}, {"text": "x", "label": "pink"}])
    files, watcher = JobFiles(colours(tmp_path / "a"), other), Watcher()
    with pytest.raises(InvalidTrainingFile, match="validation_file: line 2: .*'pink'"):
        run_job(job(base, "sequence_classification"), base, files, tmp_path / "job", watcher)
    assert watcher.events == []


def test_a_regression_needs_numbers(tmp_path: Path) -> None:
    base = encoder_base("bert", "regression")
    path = lines(tmp_path / "a", [{"text": "x", "label": "1.5"}, {"text": "x", "label": "high"}])
    with pytest.raises(InvalidTrainingFile, match="line 2: .*'high'"):
        run_job(job(base, "regression"), base, JobFiles(path), tmp_path / "job", Reporter())


# -- bases -----------------------------------------------------------------------------------------


def test_a_loaded_base_is_the_servers_own(tmp_path: Path) -> None:
    from server.base.loading import load_base

    folder = tiny.save_base(tmp_path / "lm")
    ours, theirs = load(folder, "causal_lm"), load_base(str(folder), None, "cpu", "auto")
    assert ours.spec == theirs.spec
    assert ours.max_length == theirs.max_length
    folder = tiny_encoders.save(tmp_path / "bert", "bert")
    ours = load(folder, "sequence_classification")
    theirs = load_base(str(folder), None, "cpu", "auto")
    assert ours.spec == theirs.spec
    assert ours.max_length == theirs.max_length


def test_a_base_without_a_head_gets_the_servers_fingerprint(tmp_path: Path) -> None:
    from server.base.loading import load_base

    folder = tiny_encoders.save(tmp_path / "bert", "bert", is_embedder=True)
    theirs = load_base(str(folder), None, "cpu", "auto", "classify")
    ours = load(folder, "sequence_classification")
    assert ours.spec == theirs.spec
    assert ours.spec.head is not None
    assert ours.spec.head.untrained


@pytest.mark.parametrize("rule", ["all-linear", ".*(pos_key|value)_proj"])
def test_what_all_texts_share_is_trained_where_it_is_named(rule: str, tmp_path: Path) -> None:
    from server.base.loading import make_encoder

    task, words = "sequence_classification", tiny_encoders.tokenizer()
    base = make(tiny_encoders.deberta(), words, "tiny", task)
    served = make_encoder(tiny_encoders.deberta(), words, "tiny", "text classifier").spec
    assert base.spec == served
    assert any("pos_key_proj" in path for path in base.spec.shared)
    files = JobFiles(colours(tmp_path / "a"))
    method: dict[str, Any] = {"n_frequency": 40, "target_modules": rule}
    run_job(job(base, task, max_steps=2, method_config=method), base, files, tmp_path, Reporter())
    adapter = tmp_path / "adapter_model.safetensors"
    config = (tmp_path / "adapter_config.json").read_bytes()
    layers = read_adapter(adapter, config, served).layers
    assert any("value_proj" in path for path in layers)
    assert bool(set(layers) & base.spec.shared) == (rule != "all-linear")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (["query_proj", "nope"], "name 'nope', which is no layer of base 'tiny'; it has .*dense"),
        ("nope", "select no layer"),
        ([], "names no layer"),
    ],
)
def test_targets_that_cannot_be_had_are_named_before_the_files_are_read(
    rule: Any, said: str, tmp_path: Path
) -> None:
    task = "sequence_classification"
    base = make(tiny_encoders.deberta(), tiny_encoders.tokenizer(), "tiny", task)
    spec = job(base, task, method_config={"target_modules": rule})
    with pytest.raises(InvalidMethod, match=said) as raised:
        run_job(spec, base, JobFiles(tmp_path / "none"), tmp_path / "job", Reporter())
    assert raised.value.param == "target_modules"


@pytest.mark.parametrize("shape", ["bert", "fnet", "convbert", "gpt2"])
def test_a_batch_of_texts_has_the_logits_that_each_text_has_alone(shape: str) -> None:
    """As it is served, whatever side the tokenizer pads on and whatever the base reads of it."""
    task, words = "sequence_classification", tiny_encoders.tokenizer()
    words.padding_side = "left"
    model = tiny_encoders.model(shape) if shape == "bert" else tiny_encoders.other(shape)
    base = make(model, words, "tiny", task)
    assert base.spec.pads == (shape not in tiny_encoders.READING_PADDING)
    made = task_of(task, base, Hyperparameters(), Reporter())
    made.use_labels(("x", "y"))
    rows = [{"text": "a" * n, "label": "xy"[n % 2]} for n in (1, 7, 30, 7)]
    examples = [made.example(row) for row in rows]
    _, logits = made.loss(model, made.batch(examples, torch.device("cpu")))
    for row, example in zip(logits, examples, strict=True):
        ids = torch.tensor([list(example.ids)])
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        assert torch.allclose(row, alone, atol=1e-5)


@pytest.mark.parametrize("task", ["causal_lm", "image_classification"])
def test_a_base_of_another_kind_is_refused(task: str, tmp_path: Path) -> None:
    folder = tiny_encoders.save(tmp_path / "bert", "bert")
    with pytest.raises(BaseNotLoadable, match="Give a folder"):
        load(folder, task)
    with pytest.raises(BaseNotLoadable):
        load(tmp_path / "none", task)
