"""A job at hand: waited for, watched, moved."""

from typing import Any

import pytest

from overtone_client import AsyncClient, Client, ConnectionLost, JobFailed, OvertoneError, Timeout

from .fake_overtone import State


@pytest.fixture
def job(client: Client) -> Any:
    return client.training.create("tiny", "file-1", name="poet")


def ends_after(state: State, monkeypatch: pytest.MonkeyPatch, looks: int) -> list[float]:
    """Let the only job end after so many pauses; return those pauses."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == looks:
            for id_ in state.training.jobs:
                state.training.end(id_)

    monkeypatch.setattr("overtone_client._pauses.pause", pause)
    return pauses


def test_waiting_returns_the_job_at_its_end(
    job: Any, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = ends_after(state, monkeypatch, looks=3)
    done = job.wait()
    assert (done.status, done.fine_tuned_model) == ("succeeded", "poet@1")
    assert job.status == "queued"  # what was known then stays what it was
    assert len(pauses) == 3
    assert done.wait() == done


def test_waiting_for_a_job_that_fails_raises_and_says_why(
    job: Any, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.training.ending = "failed"
    ends_after(state, monkeypatch, looks=1)
    with pytest.raises(JobFailed, match="NaN at step 1") as caught:
        job.wait()
    assert caught.value.code == "loss_not_finite"
    assert caught.value.job
    assert caught.value.job.id == job.id
    assert job.wait(check=False).status == "failed"


def test_a_cancelled_job_has_failed(job: Any) -> None:
    assert job.cancel().status == "cancelled"
    with pytest.raises(JobFailed, match="was cancelled") as caught:
        job.wait()
    assert caught.value.code == "cancelled"


def test_waiting_ends_with_its_time(job: Any) -> None:
    with pytest.raises(Timeout, match=r"is queued after 0 s; it goes on"):
        job.wait(timeout_s=0)


def test_jobs_are_paused_and_resumed_at_hand(job: Any) -> None:
    assert job.pause().status == "paused"
    assert job.resume().status == "queued"
    assert job.refresh() == job.refresh()


def test_events_come_once_each_over_a_stream_that_breaks(
    job: Any, state: State, paused: list[float]
) -> None:
    state.training.breaks = 1
    lost: list[OvertoneError] = []
    seen = [(event.type, event.message) for event in job.events(on_lost=lost.append)]
    first, last = ("message", "word 1"), ("message", "word 9")
    assert seen == [first, ("metrics", "word 1"), ("metrics", "word 2"), last]
    assert [type(error) for error in lost] == [ConnectionLost]
    again = {"stream": "true", "after": "ftevent-1-0", "after_step": "1"}
    assert state.training.streams == [{"stream": "true"}, again]
    assert len(paused) == 1


@pytest.mark.anyio
async def test_the_awaited_job_does_the_same(async_client: AsyncClient) -> None:
    job = await async_client.training.create("tiny", "file-1", name="poet")
    seen = [event.message async for event in job.events()]
    assert seen[-1] == "word 9"
    assert (await job.wait()).fine_tuned_model == "poet@1"
    assert [each.id async for each in async_client.training.jobs()] == [job.id]
