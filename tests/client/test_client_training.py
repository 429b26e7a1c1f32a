"""Training through the client: files, jobs, and both twins alike."""

from pathlib import Path
from typing import Any

import pytest

from overtone_client import AsyncClient, Client, InvalidArgument, NotFound

from .fake_overtone import State
from .fake_training import PNG


def test_a_file_goes_up_and_comes_back(client: Client, data: Path) -> None:
    seen: list[tuple[int, int]] = []
    file = client.training.upload(data, on_progress=lambda *at: seen.append(at))
    assert (file.filename, file.size_bytes, file.faults) == ("lines.jsonl", 14, None)
    assert seen[-1] == (14, 14)
    assert client.training.file(file.id) == file
    assert client.training.file_content(file.id) == data.read_bytes()
    client.training.delete_file(file.id)
    with pytest.raises(NotFound, match="no file"):
        client.training.file(file.id)


def test_a_file_that_is_not_there_is_not_sent(client: Client, state: State) -> None:
    with pytest.raises(InvalidArgument, match="there is no file"):
        client.training.upload("/no/such/file")
    assert state.calls == []


def test_lists_are_walked_page_by_page(client: Client, state: State, data: Path) -> None:
    ids = [client.training.upload(data).id for _ in range(5)]
    assert [file.id for file in client.training.files()] == ids[::-1]
    assert [file.id for file in client.training.files(limit=3)] == ids[:1:-1]
    jobs = [client.training.create("tiny", ids[0]).id for _ in range(3)]
    assert [job.id for job in client.training.jobs()] == jobs[::-1]
    assert [event.message for event in client.training.events(jobs[0])] == [
        "word 3",
        "word 2",
        "word 1",
    ]
    assert [point.step for point in client.training.curve(jobs[0])] == [1, 2, 3]
    assert [one.step for one in client.training.checkpoints(jobs[0])] == [5, 5]
    with pytest.raises(InvalidArgument, match="at least 1"):
        client.training.jobs(limit=0)


def test_a_checkpoint_has_its_samples(client: Client, data: Path) -> None:
    id_ = client.training.create("tiny", client.training.upload(data).id).id
    newest, oldest = client.training.checkpoints(id_)
    first, second = newest.samples
    assert (first.prompt, first.expected, first.answer) == ("2+2=", "6", "4")
    assert (first.finish_reason, second.finish_reason) == ("stop", "length")
    assert (newest.samples_source, newest.samples_left_out) == ("validation_file", None)
    assert (oldest.samples, oldest.samples_source) == ([], None)  # of an earlier server


def test_a_job_says_all_that_was_given_and_nothing_else(client: Client, state: State) -> None:
    client.training.create("tiny", "file-1")
    client.training.create(
        "tiny",
        "file-1",
        name="poet",
        method="loca",
        config={"n_frequency": 5},
        hyperparameters={"n_epochs": 2, "batch_size": None},
        seed=0,
        alias="prod",
        publish_if={"metric": "eval_loss", "better_than": "base"},
        metadata={"a": "b"},
    )
    assert state.training.bodies == [
        {"model": "tiny", "training_file": "file-1", "adapter": {}},
        {
            "model": "tiny",
            "training_file": "file-1",
            "seed": 0,
            "metadata": {"a": "b"},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
            "adapter": {
                "name": "poet",
                "method": "loca",
                "config": {"n_frequency": 5},
                "alias": "prod",
                "publish_if": {"metric": "eval_loss", "better_than": "base"},
            },
        },
    ]


def test_a_job_is_paused_resumed_cancelled_and_drawn(client: Client) -> None:
    id_ = client.training.create("tiny", "file-1").id
    assert client.training.pause(id_).status == "paused"
    assert client.training.resume(id_).status == "queued"
    assert client.training.cancel(id_).is_final
    assert client.training.plot(id_) == PNG


def test_a_stream_ends_with_the_job(client: Client) -> None:
    id_ = client.training.create("tiny", "file-1", name="poet").id
    events = list(client.training.stream(id_))
    assert [event.type for event in events] == ["message", "metrics", "metrics", "message"]
    assert events[1].data["train_loss"] == 2.0
    job = client.training.job(id_)
    assert (job.status, job.fine_tuned_model) == ("succeeded", "poet@1")
    assert (job.step, job.num_steps, job.metrics["eval_loss"]) == (2, 2, 1.25)


@pytest.mark.anyio
async def test_the_async_twin_does_the_same(async_client: AsyncClient, data: Path) -> None:
    training = async_client.training
    file = await training.upload(data)
    assert await training.file_content(file.id) == data.read_bytes()
    job = await training.create("tiny", file.id, name="poet")
    assert [each.id async for each in training.jobs()] == [job.id]
    events: list[Any] = [event async for event in training.stream(job.id)]
    assert len(events) == 4
    assert (await training.job(job.id)).fine_tuned_model == "poet@1"
    assert await training.plot(job.id) == PNG
