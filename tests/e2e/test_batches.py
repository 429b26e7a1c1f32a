"""Batches on real programs: killed, stopped, taken over; and OpenAI's own client, unmodified."""

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from openai import OpenAI

import spectra
from batches_made import lines, request
from live import BASE
from program import PROGRAM, Program
from registry.batches.segments import Answered
from registry.redis.embedded import EmbeddedServer
from waiting import until

FINAL = ("completed", "failed", "expired", "cancelled")
#: Of the tiny base some tens are answered a second: enough time to be killed.
SLOW = {"max_tokens": 60, "ignore_eos": True}
SETTINGS = {"max_running": 16, "kv_bytes": 1 << 26, "calibration_s": 0, "batch_lost_after_s": 1}
NUM = 150
MODELS = (BASE, "poet-0", "poet-1")
#: Requests that a server of these settings has open at a time.
WIDTH = 25


@pytest.fixture(scope="module")
def base(base_folder: Callable[[str], Path]) -> Path:
    return base_folder("llama")


@pytest.fixture(scope="module")
def program(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("batches")
    made = Program(base, folder / "data", folder / "log", settings=SETTINGS)
    _upload_adapters(made)
    yield made
    made.close()


def _upload_adapters(program: Program) -> None:
    for i, name in enumerate(MODELS[1:]):
        assert program.upload(name, spectra.files(i)).status_code == 201


def created(program: Program, *objects: dict[str, Any]) -> str:
    files = {"file": ("in.jsonl", lines(*objects))}
    file = program.http.post("/v1/files", data={"purpose": "batch"}, files=files).json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    answer = program.http.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def slow_requests(count: int = NUM) -> list[dict[str, Any]]:
    return [request(i, model=MODELS[i % 3], **SLOW) for i in range(count)]


def batch_of(program: Program, id_: str) -> dict[str, Any]:
    found: dict[str, Any] = program.http.get(f"/v1/batches/{id_}").json()
    return found


def at_end(program: Program, id_: str, timeout_s: float = 90.0) -> dict[str, Any]:
    def ended() -> Any:
        batch = batch_of(program, id_)
        return batch if batch["status"] in FINAL else None

    found: dict[str, Any] = until(ended, timeout_s)
    return found


def kept(data: Path, id_: str) -> set[int]:
    """Return the requests whose answers are on the disk."""
    found: set[int] = set()
    for segment in (data / "blobs" / "batches" / id_).glob("*.part"):
        read = map(Answered.read, segment.read_bytes().splitlines(keepends=True))
        found |= {one.number for one in read if one is not None}
    return found


def check_results(program: Program, batch: dict[str, Any], count: int = NUM) -> None:
    """Every request has one line, in the file's order, of the adapter that it named."""
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": count, "completed": count, "failed": 0}
    content = program.http.get(f"/v1/files/{batch['output_file_id']}/content").text
    found = [json.loads(line) for line in content.splitlines()]
    assert [line["custom_id"] for line in found] == [f"request-{i}" for i in range(count)]
    bodies = [line["response"]["body"] for line in found]
    assert [body["model"] for body in bodies] == [MODELS[i % 3] for i in range(count)]
    adapters = [body["overtone"]["adapter"] for body in bodies]
    assert adapters == [None if i % 3 == 0 else MODELS[i % 3] for i in range(count)]
    assert {body["usage"]["completion_tokens"] for body in bodies} == {SLOW["max_tokens"]}


def test_a_killed_server_runs_only_what_was_open_again(program: Program) -> None:
    id_ = created(program, *slow_requests())
    until(lambda: len(kept(program.data, id_)) >= 30)
    program.kill()
    done = kept(program.data, id_)
    assert len(done) < NUM

    program.restart()
    ended = at_end(program, id_)

    check_results(program, ended)
    assert ended["overtone"]["attempts"] == 2
    assert program.metrics("overtone_batch_requests_total") == NUM - len(done)
    assert not (program.data / "blobs" / "batches" / id_).exists()


def test_a_server_that_is_stopped_gives_its_batches_back(program: Program) -> None:
    id_ = created(program, *slow_requests())
    until(lambda: len(kept(program.data, id_)) >= 20)
    program.process.send_signal(signal.SIGTERM)
    assert program.process.wait(30) == 0
    done = kept(program.data, id_)
    assert len(done) < NUM

    program.restart()
    assert batch_of(program, id_)["request_counts"]["completed"] >= 20
    check_results(program, at_end(program, id_))
    assert program.metrics("overtone_batch_requests_total") == NUM - len(done)


@pytest.mark.slow
def test_another_server_takes_a_batch_over_when_its_own_is_killed(
    base: Path, tmp_path: Path
) -> None:
    registry = EmbeddedServer(tmp_path / "registry")
    store = {**SETTINGS, "store": tmp_path / "data" / "blobs"}
    with closing(registry):
        one, two = (
            Program(base, tmp_path / "data", tmp_path / f"log-{i}", registry.url, store)
            for i in range(2)
        )
        with closing(one), closing(two):
            _upload_adapters(one)
            id_ = created(one, *slow_requests())
            until(lambda: len(kept(tmp_path / "data", id_)) >= 20)
            owner = batch_of(two, id_)["overtone"]["server"]
            dead, alive = (one, two) if str(one.process.pid) in owner else (two, one)
            dead.process.kill()
            dead.process.wait(30)
            done = kept(tmp_path / "data", id_)

            ended = at_end(alive, id_)

            check_results(alive, ended)
            assert alive.metrics("overtone_batch_requests_total") == NUM - len(done)


def test_openais_client_drives_batches(program: Program) -> None:
    content = lines(*(request(i, model=MODELS[i % 3], max_tokens=3) for i in range(6)))
    with OpenAI(base_url=f"{program.url}/v1", api_key="none", max_retries=0) as client:
        file = client.files.create(file=("in.jsonl", content), purpose="batch")
        assert (file.purpose, file.status) == ("batch", "processed")
        made = client.batches.create(
            input_file_id=file.id,
            endpoint="/v1/completions",
            completion_window="24h",
            metadata={"nightly": "yes"},
        )
        assert made.status in ("validating", "in_progress")

        def ended() -> Any:
            batch = client.batches.retrieve(made.id)
            return batch if batch.status in FINAL else None

        batch = until(ended)
        assert batch.status == "completed"
        assert batch.request_counts.total == batch.request_counts.completed == 6
        assert batch.metadata == {"nightly": "yes"}
        assert batch.output_file_id is not None
        text = client.files.content(batch.output_file_id).text
        assert [json.loads(line)["custom_id"] for line in text.splitlines()] == [
            f"request-{i}" for i in range(6)
        ]
        walked = [one.id for one in client.batches.list(limit=1)]
        assert walked[0] == made.id
        assert len(walked) == len(set(walked))
        long = lines(*(request(i, max_tokens=400, ignore_eos=True) for i in range(200)))
        slow = client.batches.create(
            input_file_id=client.files.create(file=("in.jsonl", long), purpose="batch").id,
            endpoint="/v1/completions",
            completion_window="24h",
        )
        assert client.batches.cancel(slow.id).status in ("cancelling", "cancelled")
        assert until(lambda: client.batches.retrieve(slow.id).status == "cancelled")
        bad = client.files.create(file=("in.jsonl", b'{"custom_id": "1"}\n'), purpose="batch")
        failed = client.batches.create(
            input_file_id=bad.id, endpoint="/v1/completions", completion_window="24h"
        )
        until(lambda: client.batches.retrieve(failed.id).status == "failed")
        faults = client.batches.retrieve(failed.id).errors
        assert faults is not None
        assert faults.data is not None
        assert (faults.data[0].line, faults.data[0].code) == (1, "missing_required_parameter")


def test_the_command_line_runs_a_file_to_its_results(program: Program, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    file.write_bytes(lines(*(request(i, max_tokens=3) for i in range(5)), request(9, model="no")))

    def run(*words: str) -> dict[str, Any]:
        command = [PROGRAM, "--url", program.url, "--json", "batch", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    batch = run("create", str(file), "--follow")
    assert batch["request_counts"] == {"total": 6, "completed": 5, "failed": 1}
    assert batch["id"] in [one["id"] for one in run("list")["data"]]
    assert run("results", batch["id"][:20], "--output", str(out))["lines"] == 6
    found = map(json.loads, out.read_text().splitlines())
    statuses = [line["response"]["status_code"] for line in found]
    assert statuses == [200] * 5 + [404]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_thousand_requests_over_a_hundred_adapters_survive_three_kills(
    base: Path, tmp_path: Path
) -> None:
    count = 10_000
    names = [f"poet-{i}" for i in range(100)]
    program = Program(base, tmp_path / "data", tmp_path / "log", settings=SETTINGS)
    with closing(program):
        for i, name in enumerate(names):
            assert program.upload(name, spectra.files(i)).status_code == 201
        made = [request(i, model=names[i % 100], max_tokens=4) for i in range(count)]
        id_ = created(program, *made)
        random, redone, most_bytes = Random(0), 0, 0
        for share in (0.2, 0.5, 0.8):
            goal = int(share * count) + random.randrange(200)
            until(lambda goal=goal: len(kept(program.data, id_)) >= goal, 600)  # type: ignore[misc]
            most_bytes = max(most_bytes, psutil.Process(program.process.pid).memory_info().rss)
            ran = program.metrics("overtone_batch_requests_total")
            program.kill()
            redone += ran
            program.restart()
            assert program.tokens("poet-0")
        ended = at_end(program, id_, 600)
        redone += program.metrics("overtone_batch_requests_total")

        assert ended["request_counts"] == {"total": count, "completed": count, "failed": 0}
        assert redone - count <= 3 * WIDTH
        content = program.http.get(f"/v1/files/{ended['output_file_id']}/content").text
        found = [json.loads(line) for line in content.splitlines()]
        assert [line["custom_id"] for line in found] == [one["custom_id"] for one in made]
        adapters = [line["response"]["body"]["overtone"]["adapter"] for line in found]
        assert adapters == [names[i % 100] for i in range(count)]
        assert most_bytes < 3 << 30
