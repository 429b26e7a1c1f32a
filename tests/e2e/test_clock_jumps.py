"""Machines' clocks are set while a server, a worker, a registry run: dates follow, no duration."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import spectra
from faked_clock import LIBRARY, FakedClock
from program import PROGRAM, Program
from redis_site import RedisSite
from registry.connect import connect
from registry.redis.embedded import find_binary
from waiting import until
from worker_scene import TESTS, Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
QUICK = {"calibration_s": 0, "kv_bytes": 1 << 26}
HOUR = 3600
ADMIN = "an-admins-secret"


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> FakedClock:
    return FakedClock(tmp_path_factory.mktemp("clock") / "machine")


@pytest.fixture(scope="module")
def program(
    base_folder: Callable[[str], Path],
    clock: FakedClock,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Program]:
    folder, settings = tmp_path_factory.mktemp("served"), QUICK | {"api_keys": f"root={ADMIN}"}
    variables = clock.of_python(os.environ.get("PYTHONPATH", ""))
    words = ("env", *(f"{name}={value}" for name, value in variables.items()), PROGRAM, "serve")
    made = Program(
        base_folder("llama"), folder / "data", folder / "log", settings=settings, command=words
    )
    made.http.headers["Authorization"] = f"Bearer {ADMIN}"
    yield made
    made.close()


class Streamed:
    """A long answer on its way, with a minute for all of it."""

    def __init__(self, program: Program, max_tokens: int) -> None:
        self.tokens: list[int] = []
        self.errors: list[Any] = []
        fixed = {"max_tokens": max_tokens, "ignore_eos": True, "temperature": 0, "stream": True}
        self._body = {"model": "poet", "prompt": "Once", "return_token_ids": True, **fixed}
        self._body["timeout_s"] = 60
        self._program = program
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        with self._program.http.stream("POST", "/v1/completions", json=self._body) as answer:
            for line in answer.iter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    self.errors.append(event)
                    continue
                for choice in event["choices"]:
                    self.tokens += choice.get("token_ids") or []


@pytest.mark.parametrize("jump", [48 * HOUR, -48 * HOUR])
def test_answers_on_their_way_go_on_when_the_clock_is_set(
    program: Program, clock: FakedClock, jump: int
) -> None:
    if jump > 0:
        assert program.upload("poet", spectra.files(1)).status_code == 201
    tokens = program.tokens("poet")
    streamed = Streamed(program, 900)
    until(lambda: len(streamed.tokens) > 3)
    clock.jump_to(jump)
    streamed.thread.join(60)
    assert not streamed.thread.is_alive()
    assert streamed.errors == []
    assert len(streamed.tokens) == 900
    assert program.tokens("poet") == tokens
    assert program.http.get("/health/ready").status_code == 200
    assert program.upload(f"poet{jump}", spectra.files(2)).status_code == 201
    clock.jump_to(0)
    assert program.tokens("poet") == tokens
    assert program.http.get(f"/v1/adapters/poet{jump}").status_code == 200


def test_a_key_expires_by_the_clock_and_is_valid_again_when_that_is_set_back(
    program: Program, clock: FakedClock
) -> None:
    body = {"tenant": "alice", "scopes": ["infer"], "expires_in_s": HOUR}
    made = program.http.post("/v1/keys", json=body)
    assert made.status_code in (200, 201), made.text
    key = {"Authorization": f"Bearer {made.json()['secret']}"}

    def asked() -> int:
        return program.http.get("/v1/models", headers=key).status_code

    assert asked() == 200
    clock.jump_to(2 * HOUR)
    assert asked() == 401
    assert program.http.get("/v1/models").status_code == 200
    clock.jump_to(0)
    assert asked() == 200


@pytest.mark.parametrize("jump", [24 * HOUR, -24 * HOUR])
def test_no_job_is_taken_from_a_worker_because_a_clock_was_set(
    tmp_path: Path, clock: FakedClock, jump: int
) -> None:
    """Neither where the worker's own clock jumps, nor where the other one's does."""
    with connect("embedded", tmp_path) as registry:
        scene = Scene(registry, tmp_path, patience_s=300.0)
        try:
            scene.start(environment=clock.of_python(f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"))
            spec = scene.file(400)
            scene.at_step(spec, 15)
            scene.start()
            clock.jump_to(jump)
            scene.at_step(spec, 200)
            clock.jump_to(0)
            end = scene.ended(spec)
        finally:
            clock.jump_to(0)
            scene.close()
        assert (end.state, end.attempts, end.worker) == ("succeeded", 1, "worker-0")
        assert len(registry.adapters.versions(spec.name)) == 1


@pytest.mark.skipif(LIBRARY is None, reason="needs Debian's libfaketime")
def test_a_registry_with_a_clock_that_is_set_loses_nothing_and_is_followed(
    base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its stream of changes has numbers by the clock, which must not go back.

    A Valkey without jemalloc, with which libfaketime does not start.
    """
    clock = FakedClock(tmp_path / "machine")
    redis = RedisSite(tmp_path / "redis", clock.of_redis(), find_binary())
    base = base_folder("llama")
    program = Program(base, tmp_path / "data", tmp_path / "log", redis.url, QUICK)
    try:
        for number, jump in enumerate((0, 48 * HOUR, -48 * HOUR, 0)):
            clock.jump_to(jump)
            assert program.upload("poet", spectra.files(number)).status_code == 201
            versions = program.http.get("/v1/adapters/poet/versions").json()["data"]
            assert len(versions) == number + 1
            assert program.tokens("poet")
            assert program.tokens("poet@1")
        assert "data were replaced" not in program.log.read_text()
    finally:
        program.close()
        redis.kill()
