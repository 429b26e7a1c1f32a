"""Training from outside: OpenAI's own Python client, unmodified, and the command line.

One real program with its worker, on a tiny base; jobs take seconds.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai import OpenAI

from live import BASE
from program import PROGRAM, Program, environment
from training_parts import jsonl
from waiting import until

ADAPTER = {"method": "fourierft", "name": "poet", "config": {"n_frequency": 64}}
CHATS = [
    {
        "messages": [
            {"role": "user", "content": f"Say {number}"},
            {"role": "assistant", "content": f"{number}!"},
        ]
    }
    for number in range(24)
]
FINAL = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def program(
    base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("training")
    base, log = base_folder("llama"), folder / "log"
    started = Program(base, folder / "data", log, settings={"with_worker": "true"})
    yield started
    started.close()
    assert started.process.returncode in (0, -9), log.read_text()


@pytest.fixture(scope="module")
def client(program: Program) -> Iterator[OpenAI]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        made = OpenAI(base_url=f"{program.url}/v1", api_key="none", max_retries=0, timeout=60)
        with closing(made):
            yield made


def hyper(**values: Any) -> Any:
    return {"type": "supervised", "supervised": {"hyperparameters": values}}


def at_end(client: OpenAI, id_: str) -> Any:
    """Return the job when nothing more happens to it."""

    def ended() -> Any:
        job = client.fine_tuning.jobs.retrieve(id_)
        return job if job.status in FINAL else None

    return until(ended, 400)


def worker_of(program: Program) -> psutil.Process:
    (found,) = [p for p in program.children() if "trainer.worker.commands" in p.cmdline()]
    return found


@pytest.fixture(scope="module")
def poet(client: OpenAI) -> Any:
    """A finished job, filed as anybody files one with OpenAI."""
    file = client.files.create(file=("chats.jsonl", jsonl(*CHATS)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        seed=3,
        metadata={"team": "blue"},
        method=hyper(n_epochs=2, batch_size=4, checkpoint_every_steps=2),
        extra_body={"adapter": ADAPTER},
    )
    assert job.status in ("validating_files", "queued", "running")
    return at_end(client, job.id)


@pytest.mark.timeout(180)
def test_a_file_becomes_a_model_that_answers(client: OpenAI, poet: Any) -> None:
    assert (poet.status, poet.error) == ("succeeded", None)
    assert poet.fine_tuned_model == "poet@1"
    assert poet.trained_tokens > 0
    assert (poet.hyperparameters.n_epochs, poet.seed) == (2, 3)
    answer = client.chat.completions.create(
        model=poet.fine_tuned_model,
        messages=[{"role": "user", "content": "Say 3"}],
        max_completion_tokens=4,
        temperature=0,
    )
    assert answer.choices[0].message.content is not None
    assert answer.model_extra is not None
    assert answer.model_extra["overtone"]["adapter"] == "poet"
    assert "poet" in {model.id for model in client.models.list()}


def test_the_files_are_openais(client: OpenAI, poet: Any) -> None:
    file = client.files.retrieve(poet.training_file)
    assert (file.filename, file.status, file.purpose) == ("chats.jsonl", "processed", "fine-tune")
    assert client.files.content(file.id).read() == jsonl(*CHATS)
    assert file.id in {each.id for each in client.files.list()}
    spare = client.files.create(file=("spare.jsonl", jsonl(CHATS[0])), purpose="fine-tune")
    assert client.files.delete(spare.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(spare.id)


def test_events_checkpoints_and_lists_are_walked_by_openais_pages(
    client: OpenAI, poet: Any
) -> None:
    events = list(client.fine_tuning.jobs.list_events(poet.id, limit=2))
    messages = [event.message for event in events]
    assert messages[-1] == "The job was created"
    assert messages[0] == "The job succeeded"
    assert any("poet@1" in message for message in messages)
    assert len({event.id for event in events}) == len(events) > 4
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(poet.id, limit=1))
    steps = [one.step_number for one in checkpoints]
    assert steps == sorted(steps, reverse=True)
    assert len(steps) >= 1
    assert checkpoints[0].fine_tuning_job_id == poet.id
    own = [one.model_extra["overtone"] for one in checkpoints if one.model_extra]
    assert len(own) == len(steps)
    (found, *_) = [one for one in own if one["samples"]]
    assert found["samples_source"] == "training_file"
    assert "Say" in found["samples"][0]["prompt"]
    assert poet.id in {job.id for job in client.fine_tuning.jobs.list(limit=1)}


def test_the_record_says_how_the_version_was_made(program: Program, poet: Any) -> None:
    record = program.http.get("/v1/adapters/poet").json()
    assert record["created_by"] == poet.id
    assert record["metadata"]["team"] == "blue"
    made = record["metadata"]["training"]
    assert made["data_digest"].startswith("sha256:")
    assert (made["method"], made["seed"], made["steps"] > 0) == ("fourierft", 3, True)
    assert record["metrics"]["eval_loss"] > 0
    assert record["metrics"]["base"]["eval_loss"] > 0


def test_its_curve_is_there_as_numbers_and_as_a_picture(program: Program, poet: Any) -> None:
    points = program.http.get(f"/v1/fine_tuning/jobs/{poet.id}/metrics").json()["data"]
    assert {"train_loss", "eval_loss"} <= {name for point in points for name in point}
    picture = program.http.get(f"/v1/fine_tuning/jobs/{poet.id}/plot.png").content
    assert picture.startswith(b"\x89PNG")


def test_prometheus_sees_what_was_trained(program: Program, poet: Any) -> None:
    def trained() -> bool:
        return program.metrics("overtone_train_steps_total") > 0

    until(trained, 20)
    assert program.metrics("overtone_train_tokens_total") > 0
    assert program.metrics("overtone_train_loss") > 0
    assert program.metrics("overtone_jobs") >= 1


def test_a_wrong_line_fails_the_job_and_is_named(client: OpenAI) -> None:
    file = client.files.create(file=("bad.jsonl", b'{"text": "a"}\nnope\n'), purpose="fine-tune")
    assert file.status == "error"
    job = client.fine_tuning.jobs.create(model=BASE, training_file=file.id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert "line 2" in job.error.message


def test_a_text_longer_than_the_base_fails_its_job_before_it_runs(client: OpenAI) -> None:
    texts = [{"text": "short"}, {"text": "short"}, {"text": "long " * 2000}]
    file = client.files.create(file=("long.jsonl", jsonl(*texts)), purpose="fine-tune")
    assert file.status == "processed"  # how long it is for a base, its tokenizer knows
    job = at_end(client, client.fine_tuning.jobs.create(model=BASE, training_file=file.id).id)
    assert (job.status, job.fine_tuned_model) == ("failed", None)
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert "line 3" in job.error.message
    moves = [event.data for event in client.fine_tuning.jobs.list_events(job.id) if event.data]
    assert moves[0] == {"from": "validating_files", "to": "failed"}  # the newest first


def test_what_openais_client_gets_wrong_it_hears_as_its_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="n_epochs"):
        client.fine_tuning.jobs.create(model=BASE, training_file="file-1", method=hyper(n_epochs=0))
    with pytest.raises(openai.NotFoundError, match="no file"):
        client.fine_tuning.jobs.create(model=BASE, training_file=f"file-{'0' * 24}")
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-1")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_running_job_is_paused_resumed_and_cancelled(client: OpenAI, poet: Any) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=poet.training_file, method=hyper(n_epochs=1000, batch_size=2)
    )

    def step() -> int:
        found: Any = client.fine_tuning.jobs.retrieve(job.id)
        return int(found.overtone["progress"]["step"])

    until(lambda: step() > 3, 240)
    assert str(client.fine_tuning.jobs.pause(job.id).status) == "paused"
    before = step()
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    until(lambda: step() > before + 3, 240)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model is None


def overtone(program: Program, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, *arguments, "--url", program.url],
        capture_output=True,
        text=True,
        timeout=100,
        env={**environment(), "NO_PROXY": "127.0.0.1", "COLUMNS": "200"},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_command_line_trains_follows_and_reproduces(
    program: Program, poet: Any, tmp_path: Path
) -> None:
    data = tmp_path / "texts.csv"
    data.write_text("text\n" + "".join(f"line {number} of it\n" for number in range(24)))
    words = ["--data", str(data), "--name", "scribe", "--method", "waveletft", "--follow"]
    done = overtone(program, "train", *words, "--config", "n_frequency=32", "--set", "max_steps=5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "scribe@1" in done.stdout
    assert "The job succeeded" in done.stderr
    again = overtone(program, "reproduce", "scribe@1", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads(again.stdout)["same"] is True
    names = {model["id"] for model in program.http.get("/v1/models").json()["data"]}
    assert not [name for name in names if "again" in name]


@pytest.mark.timeout(180)
def test_a_worker_that_is_killed_is_back_and_ends_with_its_server(
    program: Program, client: OpenAI, poet: Any
) -> None:
    first = worker_of(program)
    first.kill()
    until(lambda: first.pid not in {p.pid for p in program.children()}, 30)
    until(lambda: [p for p in program.children() if "trainer.worker.commands" in p.cmdline()], 30)
    program.kill()  # which asserts that nobody is left
