"""Batches through the client and at the command line: created, followed, stopped, read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from overtone_client import AsyncClient, Client, NotFound, _batch_follow
from overtone_client._session import Session

from .fake_overtone import Fault, State

Run = Callable[..., Result]
GOOD = {
    "id": "batch_req_1",
    "custom_id": "one",
    "response": {"status_code": 200, "request_id": "r", "body": {"choices": []}},
    "error": None,
}
LATE = {
    "id": "batch_req_2",
    "custom_id": "two",
    "response": None,
    "error": {"code": "batch_expired", "message": "too late"},
}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_batch_follow, "_LOOK_S", 0.0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    path.write_text("{}\n")
    return path


def made(state: State, **more: Any) -> str:
    body = {"endpoint": "/v1/completions", "input_file_id": "file-1", "completion_window": "24h"}
    return str(state.batches.add(body, **more)["id"])


def with_results(state: State) -> None:
    lines = {"output": GOOD, "error": LATE}
    state.batches.lines = {kind: json.dumps(one).encode() + b"\n" for kind, one in lines.items()}


def test_a_batch_is_made_of_an_uploaded_file(client: Client, state: State, data: Path) -> None:
    file = client.batches.upload(data)
    assert state.training.files[file.id]["purpose"] == "batch"

    batch = client.batches.create(file.id, "/v1/completions", metadata={"a": "b"})

    assert state.batches.bodies == [
        {
            "input_file_id": file.id,
            "endpoint": "/v1/completions",
            "completion_window": "24h",
            "metadata": {"a": "b"},
        }
    ]
    assert (batch.status, batch.total, batch.metadata) == ("validating", 4, {"a": "b"})
    assert not batch.is_final


def test_lists_are_walked_page_by_page(client: Client, state: State) -> None:
    ids = [made(state) for _ in range(5)]
    assert [one.id for one in client.batches.list()] == ids[::-1]
    assert [one.id for one in client.batches.list(limit=3)] == ids[:1:-1]
    with pytest.raises(NotFound):
        client.batches.get("batch_none")


def test_results_are_the_answers_and_then_what_failed(client: Client, state: State) -> None:
    with_results(state)
    id_ = made(state)
    while not (batch := client.batches.get(id_)).is_final:
        pass
    good, late = client.batches.results(batch)
    assert (good.custom_id, good.status, good.body, good.is_good) == (
        "one",
        200,
        {"choices": []},
        True,
    )
    assert (late.custom_id, late.status, late.is_good) == ("two", None, False)
    assert late.error == {"code": "batch_expired", "message": "too late"}


@pytest.mark.anyio
async def test_the_twin_does_the_same(url: str, state: State, data: Path) -> None:
    with_results(state)
    async with AsyncClient(url) as client:
        file = await client.batches.upload(data)
        batch = await client.batches.create(file.id, "/v1/completions")
        assert [one.id async for one in client.batches.list()] == [batch.id]
        while not batch.is_final:
            batch = await client.batches.get(batch.id)
        assert [one.custom_id async for one in client.batches.results(batch)] == ["one", "two"]
        assert (await client.batches.cancel(batch.id)).status == "cancelled"


def test_create_uploads_and_says_how_to_follow(run: Run, state: State, data: Path) -> None:
    done = run("batch", "create", data, "--metadata", "who=me")
    assert done.exit_code == 0, done.output
    assert "is validating; `overtone batch show batch_" in done.stdout
    (body,) = state.batches.bodies
    assert (body["endpoint"], body["metadata"]) == ("/v1/completions", {"who": "me"})


def test_create_can_be_followed_to_the_end(run: Run, state: State, data: Path) -> None:
    with_results(state)
    done = run("batch", "create", data, "--endpoint", "/v1/completions", "--follow")
    assert done.exit_code == 0, done.output
    assert "completed" in done.stdout
    document = run("--json", "batch", "show", next(iter(state.batches.batches)))
    assert json.loads(document.stdout)["status"] == "completed"


@pytest.mark.parametrize(
    ("ending", "faults", "said"),
    [
        (
            "failed",
            [{"code": "bad", "message": "is odd", "line": 3, "param": None}],
            "line 3: is odd",
        ),
        ("expired", [], "is expired"),
        ("cancelled", [], "is cancelled"),
    ],
)
def test_a_followed_batch_that_does_not_complete_is_an_error(
    run: Run, state: State, ending: str, faults: list[dict[str, Any]], said: str
) -> None:
    state.batches.ending, state.batches.faults = ending, faults
    done = run("batch", "show", made(state), "--follow")
    assert done.exit_code == 1
    assert said in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_a_server_that_is_away_is_waited_for_and_told_once(
    url: str, state: State, capfd: pytest.CaptureFixture[str], as_json: bool
) -> None:
    session = Session(url, None, as_json)
    id_ = made(state)
    with Client(url, max_retries=0) as client:
        batch = client.batches.get(id_)
        state.next_fault = Fault(503, "registry_unavailable", "the registry is away")
        assert _batch_follow.follow(client, session, batch).status == "completed"
    told = "" if as_json else "warn  the registry is away; trying again\n"
    assert capfd.readouterr().err == told


def test_a_file_with_faults_is_deleted_again_and_its_lines_are_said(
    run: Run, state: State, data: Path
) -> None:
    state.training.faults = "line 1: has no `custom_id`"
    done = run("batch", "create", data)
    assert done.exit_code == 1
    assert "invalid_batch_file: requests.jsonl: line 1: has no `custom_id`" in done.stderr
    assert not state.training.files
    assert not state.batches.bodies


def test_results_are_printed_or_written(run: Run, state: State, tmp_path: Path) -> None:
    with_results(state)
    id_ = made(state)
    assert "results come when it is over" in run("batch", "results", id_).stderr
    for _ in range(4):
        run("batch", "show", id_)
    lines = [json.loads(line) for line in run("batch", "results", id_).stdout.splitlines()]
    assert lines == [GOOD, LATE]
    assert json.loads(run("--json", "batch", "results", id_).stdout)["data"] == [GOOD, LATE]
    done = run("batch", "results", id_, "-o", tmp_path / "out.jsonl")
    assert "2 lines are in" in done.stdout
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    assert run("batch", "results", id_, "-o", tmp_path / "no" / "out").exit_code == 2


def test_batches_are_listed_and_named_by_their_beginning(run: Run, state: State) -> None:
    assert "There are no batches." in run("batch", "list").stdout
    id_ = made(state)
    assert id_ in run("batch", "list").stdout
    assert "is in_progress" in run("batch", "show", id_[:14]).stdout
    assert "is finalizing" in run("batch", "show", id_[6:]).stdout
    assert "cancelled" in run("batch", "cancel", id_[6:20]).stdout
    assert "no batch's id begins with 'f'" in run("batch", "show", "f").stderr
    made(state)
    assert "the ids of 2 batches begin with" in run("batch", "show", "batch_0000").stderr


def test_a_list_of_batches_that_is_cut_says_so(run: Run, state: State) -> None:
    made(state)
    newest = made(state)

    cut = run("batch", "list", "--limit", 1)
    whole = run("batch", "list", "--limit", 2)

    assert newest in cut.stdout
    assert "There are more than these 1" in cut.stderr
    assert "There are more" not in whole.stderr
    assert json.loads(run("--json", "batch", "list", "--limit", 1).stdout)["has_more"]
