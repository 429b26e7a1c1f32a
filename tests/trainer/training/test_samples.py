"""Samples are what serving would answer at a checkpoint, and leave the training as it is."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_encoders as te
from adapters_core.tokens.chats import Chat, ChatTemplate
from live import CONFIG, FILE, Live
from registry.jobs.samples import Samples
from registry.jobs.spec import Task
from small_jobs import Killed, Watcher, files_of, job, killing_at, lines
from trainer.base import LoadedBase, load
from trainer.interfaces import JobFiles, Wanted
from trainer.tasks.causal_lm import MOST_NEW_TOKENS, CausalLM
from trainer.training import samples as module
from trainer.training.context import JobContext, job_setting
from trainer.training.data import open_data
from trainer.training.run import run_job
from trainer.training.samples import FREE_S, SHARE, Sampler
from trainer.training.trainable import TrainableAdapter

COMPLETIONS = [{"prompt": f"{i}+1=", "completion": str(i + 1)} for i in range(20)]
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"{i}?"},
            {"role": "assistant", "content": f"{i}!"},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": f"{i}!!"},
        ]
    }
    for i in range(20)
]
#: The adapter after step 3 does not depend on how many steps follow.
STEADY: dict[str, Any] = {"schedule": "constant", "warmup_ratio": 0.0, "learning_rate": 0.5}


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are not cut, however busy this machine is."""
    monkeypatch.setattr(module, "FREE_S", 1e6)


def served(server: Live, model: str, row: dict[str, Any]) -> tuple[str, str]:
    """Return the greedy answer to a record's first prompt, and how it ended."""
    body: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": MOST_NEW_TOKENS}
    if "messages" in row:
        body["messages"] = row["messages"][:1]
        answer = server.http.post("/v1/chat/completions", json=body)
    else:
        answer = server.http.post("/v1/completions", json=body | {"prompt": row["prompt"]})
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return text, choice["finish_reason"]


@pytest.mark.parametrize("rows", [COMPLETIONS, CHATS], ids=["completions", "chats"])
def test_a_checkpoints_samples_are_what_its_adapter_is_served_with(
    rows: list[dict[str, Any]],
    base_folder: Callable[[str], Path],
    live: Live,
    tmp_path: Path,
) -> None:
    base = load(base_folder("llama"), "causal_lm", name="tiny")
    files = JobFiles(
        lines(tmp_path / "train.jsonl", rows[4:]), lines(tmp_path / "held.jsonl", rows[:4])
    )
    run_job(job(base, max_steps=3, **STEADY), base, files, tmp_path / "three", Watcher())
    watcher = Watcher()
    spec = job(base, max_steps=5, checkpoint_samples=3, **STEADY)
    run_job(spec, base, files, tmp_path / "five", watcher)

    (found,) = watcher.sampled
    assert (found.step, found.source, found.left_out) == (3, "validation_file", None)
    name = f"sampled-{'chats' if 'messages' in rows[0] else 'completions'}"
    kept = {each: (tmp_path / "three" / each).read_bytes() for each in (CONFIG, FILE)}
    assert live.upload(name, kept).status_code == 201
    for row, sample in zip(rows, found.samples, strict=False):
        assert (sample.answer, sample.finish_reason) == served(live, name, row)
        assert sample.answer != served(live, "tiny", row)[0]
    if "messages" in rows[0]:
        template = ChatTemplate(base.reader)
        asked = [template.text(Chat(row["messages"][:1])) for row in rows[:3]]
        expected = [row["messages"][1]["content"] for row in rows[:3]]
    else:
        asked = [row["prompt"] for row in rows[:3]]
        expected = [row["completion"] for row in rows[:3]]
    assert [sample.prompt for sample in found.samples] == asked
    assert [sample.expected for sample in found.samples] == expected


def test_without_a_validation_file_the_prompts_are_held_out_of_the_training_file(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    watcher = Watcher()
    spec = job(base, checkpoint_samples=4)
    run_job(spec, base, files, tmp_path, watcher)
    assert [one.step for one in watcher.sampled] == [3, 6, 9, 12]
    held = open_data(files, task_of(base), spec.seed, tmp_path / "again.json").held_out
    prompts = [one.prompt for one in held.questions(4)]
    assert len(prompts) == 3  # all that are held out
    for found in watcher.sampled:
        assert found.source == "training_file"
        assert [sample.prompt for sample in found.samples] == prompts


def test_a_text_without_a_prompt_is_gone_on_from(base: LoadedBase, tmp_path: Path) -> None:
    rows = ({"text": f"{i} is a number, and so is {i + 1}"} for i in range(20))
    watcher = Watcher()
    files = JobFiles(lines(tmp_path / "rows", rows))
    run_job(job(base, checkpoint_samples=1, max_steps=4), base, files, tmp_path, watcher)
    (sample,) = watcher.sampled[0].samples
    text = sample.prompt + sample.expected
    assert text.endswith(str(int(text.split()[0]) + 1))
    assert 0 < len(sample.prompt) <= 1 + len(text) // 2


@dataclass
class States(Watcher):
    """Notes the state of random numbers before samples are made and after."""

    random: list[bytes] = field(default_factory=list)

    def checkpoint(self, step: int, name: str) -> None:
        super().checkpoint(step, name)
        self.random.append(torch.get_rng_state().numpy().tobytes())

    def samples(self, given: Samples) -> None:
        super().samples(given)
        self.random.append(torch.get_rng_state().numpy().tobytes())


@pytest.mark.parametrize("method", ["fourierft", "loca", "lora"])
def test_samples_change_nothing_of_the_training_also_where_it_resumes(
    method: str, base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    config = {"lora_dropout": 0.2} if method == "lora" else {}
    spec = job(base, method=method, method_config=config)
    sampled = replace(spec, hyperparameters=replace(spec.hyperparameters, checkpoint_samples=2))
    run_job(spec, base, files, tmp_path / "plain", Watcher())
    states = States()
    run_job(sampled, base, files, tmp_path / "sampled", states)
    assert len(states.sampled) == 4
    assert states.random[::2] == states.random[1::2]
    with pytest.raises(Killed):
        run_job(sampled, base, files, tmp_path / "cut", Watcher(killing_at(12)))
    again = Watcher()
    run_job(spec, base, files, tmp_path / "cut", again)  # the option is not the training's
    assert any("going on from the checkpoint" in message for _, message in again.events)
    plain = files_of(tmp_path / "plain")
    assert files_of(tmp_path / "sampled") == plain
    assert files_of(tmp_path / "cut") == plain


def test_a_failing_answer_ends_the_samples_and_not_the_job(
    base: LoadedBase, files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(job(base), base, files, tmp_path / "plain", Watcher())

    def fails(*args: Any) -> Any:
        raise torch.OutOfMemoryError("of the device")

    monkeypatch.setattr(CausalLM, "answer", fails)
    watcher = Watcher()
    run_job(job(base, checkpoint_samples=2), base, files, tmp_path / "failed", watcher)
    (found,) = watcher.sampled
    assert (found.step, found.samples, found.left_out) == (3, (), "failed")
    warnings = [message for level, message in watcher.events if level == "warn"]
    assert warnings == ["no more samples, since one failed at step 3: OutOfMemoryError"]
    assert files_of(tmp_path / "failed") == files_of(tmp_path / "plain")


def task_of(base: LoadedBase) -> CausalLM:
    from registry.jobs.spec import Hyperparameters
    from trainer.interfaces import Reporter
    from trainer.tasks.choice import task_of as made

    task = made("causal_lm", base, Hyperparameters(), Reporter())
    assert isinstance(task, CausalLM)
    return task


#: Seconds of a token, on a slow machine.
TOKEN_S = 0.4


@dataclass
class Hand:
    """A clock that a test moves."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def forward(self, *args: Any) -> None:
        """A forward pass begins, which takes long."""
        self.now += TOKEN_S


def sampling(
    base: LoadedBase, files: JobFiles, folder: Path, clock: Hand, watcher: Watcher
) -> tuple[Sampler, TrainableAdapter]:
    spec = job(base, checkpoint_samples=2)
    task = task_of(base)
    trainable = TrainableAdapter(base, job_setting(spec, base), task, seed=0)
    data = open_data(files, task, 0, folder / "data.json")
    context = JobContext(spec, base, task, data, folder, watcher)
    return Sampler(context, trainable, clock), trainable


def test_samples_take_no_more_than_their_share_of_a_runs_time(
    base: LoadedBase, files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FREE_S", FREE_S)
    clock, watcher = Hand(), Watcher()
    sampler, trainable = sampling(base, files, tmp_path, clock, watcher)
    slow = base.model.register_forward_pre_hook(clock.forward)
    try:
        spent = 0.0
        for step in range(1, 9):
            clock.now += 20.0  # of training
            began = clock.now
            sampler.take(step)
            spent += clock.now - began
            assert spent <= FREE_S + SHARE * clock.now + TOKEN_S  # what is begun is ended
    finally:
        trainable.undo()
        slow.remove()
    assert spent >= 0.5 * SHARE * 8 * 20.0
    reasons = [[one.finish_reason for one in found.samples] for found in watcher.sampled]
    assert "time" in reasons[0]  # nothing was known of its cost
    assert ([], "time") in [
        ([one.finish_reason for one in found.samples], found.left_out) for found in watcher.sampled
    ]


def test_where_the_time_is_over_that_is_said(
    base: LoadedBase, files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FREE_S", 0.0)
    monkeypatch.setattr(module, "SHARE", 0.0)
    watcher = Watcher()
    run_job(job(base, checkpoint_samples=2), base, files, tmp_path, watcher)
    assert [(one.samples, one.left_out) for one in watcher.sampled] == [((), "time")] * 4


@pytest.mark.parametrize("wanted", ["pause", "cancel"])
def test_a_job_that_is_to_end_makes_no_samples(
    wanted: Wanted, base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    clock, watcher = Hand(), Watcher(lambda asked: wanted)
    sampler, trainable = sampling(base, files, tmp_path, clock, watcher)
    slow = base.model.register_forward_pre_hook(clock.forward)
    try:
        clock.now += 1000.0
        sampler.take(3)
    finally:
        trainable.undo()
        slow.remove()
    assert (watcher.asked, watcher.sampled) == (1, [])
    assert clock.now == 1000.0  # not one token


def encoder(folder: Path, task: Task) -> LoadedBase:
    shape = "vit" if task == "image_classification" else "bert"
    changes = {"num_labels": 1} if task == "regression" else {}
    return load(te.save(folder / "base", shape, **changes), task, name="tiny")


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(12):
            out = BytesIO()
            te.picture(number).save(out, "PNG")
            archive.writestr(f"{('cat', 'dog')[number % 2]}/{number}.png", out.getvalue())
    return path


@pytest.mark.parametrize("task", ["sequence_classification", "regression", "image_classification"])
def test_a_classifiers_samples_have_the_predicted_label_beside_the_expected_one(
    task: Task, tmp_path: Path
) -> None:
    base = encoder(tmp_path, task)
    if task == "image_classification":
        data = zipped(tmp_path / "held.zip")
    else:
        labels = [i / 8 for i in range(12)] if task == "regression" else ["bad", "good"] * 6
        rows = ({"text": f"number {i}", "label": label} for i, label in enumerate(labels))
        data = lines(tmp_path / "held.jsonl", rows)
    watcher = Watcher()
    spec = job(base, task, checkpoint_samples=2, max_steps=4)
    run_job(spec, base, JobFiles(data, data), tmp_path / "job", watcher)
    (found,) = watcher.sampled
    prompts = [sample.prompt for sample in found.samples]
    expected = [sample.expected for sample in found.samples]
    answers = [sample.answer for sample in found.samples]
    assert {sample.finish_reason for sample in found.samples} == {"stop"}
    if task == "image_classification":
        assert prompts == ["cat/0.png", "cat/10.png"]
        assert expected == ["cat", "cat"]
        assert set(answers) <= {"cat", "dog"}
    elif task == "regression":
        assert (prompts, expected) == (["number 0", "number 1"], ["0", "0.125"])
        assert all(float(answer) == pytest.approx(0, abs=100) for answer in answers)
    else:
        assert (prompts, expected) == (["number 0", "number 1"], ["bad", "good"])
        assert set(answers) <= {"bad", "good"}
