"""A real server and a real Redis under faults: what was acknowledged stays, what is wrong is said.

The table of faults in docs/operations.md names these tests and those of other files.
"""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import redis

import spectra
from program import Program
from registry.redis.client import open_client
from stalling_proxy import StallingProxy
from waiting import listens, until

REDIS = Path("/usr/bin/redis-server")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.redis,
    pytest.mark.skipif(not REDIS.exists(), reason="needs redis-server"),
    pytest.mark.timeout(600),
]
QUICK = {"calibration_s": 0, "kv_bytes": 1 << 26}
FILE = "adapter_model.safetensors"


@dataclass
class Scene:
    """A server, its Redis, and the network between them."""

    program: Program
    network: StallingProxy
    redis: redis.Redis

    def upload(self, name: str, seed: int) -> tuple[int, str]:
        return told(self.program.upload(name, spectra.files(seed)))

    def ask(self, name: str) -> tuple[int, str]:
        body = {"model": name, "prompt": "Once", "max_tokens": 2}
        return told(self.program.http.post("/v1/completions", json=body))

    def blob(self, name: str) -> Path:
        digest = self.program.http.get(f"/v1/adapters/{name}").json()["digest"]
        found: Path = self.program.data / "blobs" / digest[7:9] / digest[7:] / FILE
        assert found.exists()
        return found


def told(answer: httpx2.Response) -> tuple[int, str]:
    """Return an answer's status, and its error's code."""
    return answer.status_code, answer.json().get("error", {}).get("code", "")


UNAVAILABLE = (503, "registry_unavailable")
NOT_FOUND = (404, "model_not_found")
FULL = (507, "storage_full")
MADE = (201, "")
ANSWERED = (200, "")


@pytest.fixture(scope="module")
def scene(
    base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("chaos")
    place = folder / "redis.sock"
    flags = ["--port", "0", "--unixsocket", str(place), "--dir", str(folder), "--save", ""]
    process = subprocess.Popen([str(REDIS), *flags], stdout=subprocess.DEVNULL)
    until(lambda: listens(place))
    network = StallingProxy(place)
    url = f"redis://127.0.0.1:{network.port}"
    program = Program(base_folder("llama"), folder / "data", folder / "log", url, QUICK)
    with open_client(f"unix://{place}") as client:
        yield Scene(program, network, client)
    program.close()
    network.close()
    process.kill()
    process.wait(30)


def test_a_partition_stops_changes_and_no_known_answer(scene: Scene) -> None:
    assert scene.upload("near", 1) == MADE
    tokens = scene.program.tokens("near")
    scene.network.stall()
    try:
        assert scene.upload("far", 2) == UNAVAILABLE
        assert scene.ask("never-heard-of") == UNAVAILABLE
        assert scene.program.tokens("near") == tokens
    finally:
        scene.network.go_on()
    until(lambda: scene.upload("far", 2)[0] in (200, 201))
    assert scene.program.tokens("near") == tokens
    assert scene.ask("never-heard-of") == NOT_FOUND


def test_a_registry_out_of_memory_refuses_changes_and_answers_go_on(scene: Scene) -> None:
    assert scene.upload("before", 3) == MADE
    scene.redis.config_set("maxmemory", 1)
    try:
        assert scene.upload("during", 4) == FULL
        assert scene.ask("during") == NOT_FOUND
        assert scene.ask("before") == ANSWERED
        delete = scene.program.http.delete("/v1/adapters/before")
        assert delete.status_code in (200, 507)
    finally:
        scene.redis.config_set("maxmemory", 0)
    assert scene.upload("during", 4) == MADE
    assert scene.ask("during") == ANSWERED


def test_a_registry_that_is_read_only_refuses_changes_and_answers_go_on(scene: Scene) -> None:
    assert scene.upload("written", 5) == MADE
    scene.redis.replicaof("127.0.0.1", 1)  # nothing listens there: the data stay as they are
    try:
        assert scene.upload("refused", 6) == UNAVAILABLE
        assert scene.ask("refused") == NOT_FOUND
        assert scene.ask("written") == ANSWERED
    finally:
        scene.redis.replicaof("NO", "ONE")
    until(lambda: scene.upload("refused", 6)[0] in (200, 201))
    assert scene.ask("refused") == ANSWERED


DAMAGES = {
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "file missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_blob_is_refused_by_name_and_an_upload_heals_it(scene: Scene, kind: str) -> None:
    seed = 20 + list(DAMAGES).index(kind)
    name = f"damaged-{seed}"
    assert scene.upload(name, seed) == MADE
    path = scene.blob(name)
    DAMAGES[kind](path)
    body = {"model": name, "prompt": "Once", "max_tokens": 2}
    answer = scene.program.http.post("/v1/completions", json=body)
    assert answer.status_code == 500
    assert path.parent.name in answer.json()["error"]["message"]
    assert scene.ask("tiny") == ANSWERED
    assert scene.upload(name, seed)[0] in (200, 201)
    assert scene.ask(name) == ANSWERED


def test_a_registry_that_was_emptied_has_no_names_and_its_store_keeps_every_byte(
    scene: Scene,
) -> None:
    assert scene.upload("kept", 40) == MADE
    path = scene.blob("kept")
    assert scene.ask("kept") == ANSWERED
    scene.redis.flushall()
    until(lambda: scene.ask("kept") == NOT_FOUND)
    assert path.exists()
