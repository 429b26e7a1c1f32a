"""deploy/ray on a real cluster of Ray: the same API, and replicas that may be lost."""

import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

import spectra
from live import BASE, JSON, parts
from waiting import until

from .ray_scene import OTHER, Scene, scene

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs the extra: pip install '.[ray]'"),
    pytest.mark.timeout(240),
]
NAMES = [f"adapter-{number}" for number in range(6)]
LONG_BYTES = 9 << 20
NUM_CALLERS = 4
DEADLINE_S = 100.0
#: Differ from one answer to the next.
CHANGING = re.compile(r'"(id|created|created_at)":\s*("[^"]*"|\d+)|\bresp_\w+|\bmsg_\w+')
#: Of the connection, or of one answer.
OF_ONE_ANSWER = {"date", "server", "connection", "transfer-encoding", "openai-processing-ms"}
#: When the places of open sequences will be free: that of the last answer may be open still.
SECONDS = "x-ratelimit-reset-requests"


@pytest.fixture(scope="module")
def made(
    base_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    with scene(base_folder, tmp_path_factory.mktemp("ray")) as running:
        for number, name in enumerate(NAMES):
            files = parts(spectra.files(number))
            done = running.http.post("/v1/adapters", data={"name": name}, files=files)
            assert done.status_code == 201, done.text
        family = psutil.Process(running.cluster.pid).children(recursive=True)
        yield running
        family += psutil.Process(running.cluster.pid).children(recursive=True)
    assert not [each for each in family if each.is_running()]


def completion(model: str = NAMES[0], **more: Any) -> dict[str, Any]:
    fixed = {"prompt": "Once", "max_tokens": 12, "temperature": 0, "logprobs": 3}
    return {"model": model, **fixed, **more}


def chat(model: str = NAMES[1], **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "Once"}]
    return {"model": model, "messages": said, "max_tokens": 12, "seed": 5, **more}


#: Method, path and what is sent.
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/completions", {"json": completion()}),
    ("POST", "/v1/completions", {"json": completion(BASE)}),
    ("POST", "/v1/completions", {"json": completion(stream=True)}),
    ("POST", "/v1/completions", {"json": completion("adapter-3@1", n=3, temperature=1, seed=1)}),
    ("POST", "/v1/chat/completions", {"json": chat()}),
    ("POST", "/v1/chat/completions", {"json": chat(stream=True)}),
    (
        "POST",
        "/v1/responses",
        {"json": {"model": NAMES[2], "input": "Once", "temperature": 0, "stream": True}},
    ),
    ("POST", "/tokenize", {"json": {"model": BASE, "prompt": "Once upon"}}),
    ("POST", "/v1/completions", {"json": completion("missing")}),
    ("POST", "/v1/completions", {"json": completion(max_tokens=-1)}),
    ("POST", "/v1/completions", {"json": completion(prompt="x" * 5000)}),
    ("POST", "/v1/completions", {"content": b'{"model": ', "headers": JSON}),
    ("POST", "/v1/completions", {"content": b"a" * LONG_BYTES, "headers": JSON}),
    ("POST", "/v1/embeddings", {"json": {"model": NAMES[0], "input": "Once"}}),
    ("POST", "/v1/adapters", {"data": {"name": "wrong"}, "files": {"file": b"no adapter"}}),
    ("GET", "/v1/models/adapter-1", {}),
    ("GET", "/v1/adapters?limit=2&after=adapter-3", {}),
    ("GET", "/v1/adapters/adapter-1/versions/1/content", {}),
    ("GET", "/v1/adapters/missing", {}),
    ("HEAD", "/v1/models", {}),
    ("GET", "/v1/no/such%20path", {}),
    ("PATCH", "/v1/completions", {}),
    ("GET", "/openapi.json", {}),
    ("GET", "/", {}),
    ("GET", "/health/ready", {}),
    ("POST", "/v1/completions", {"json": completion(), "headers": {"Host": "evil.example"}}),
]


@pytest.mark.parametrize(("method", "path", "sent"), REQUESTS)
def test_an_answer_is_a_plain_servers_bit_for_bit(
    made: Scene, method: str, path: str, sent: dict[str, Any]
) -> None:
    ours = made.http.request(method, path, **sent)
    theirs = made.plain.http.request(method, path, **sent)
    assert ours.status_code == theirs.status_code
    assert CHANGING.sub("", ours.text) == CHANGING.sub("", theirs.text)
    assert kept(ours) == kept(theirs)


def kept(answer: httpx2.Response) -> dict[str, str]:
    headers = {name: value for name, value in answer.headers.items() if name not in OF_ONE_ANSWER}
    assert headers.pop("x-request-id")
    headers.pop("content-length", None)
    if SECONDS in headers:
        assert headers[SECONDS] in ("0s", "1s")
        headers[SECONDS] = "a moment"
    return headers


def test_a_request_keeps_its_id(made: Scene) -> None:
    answer = made.http.get("/v1/models/missing", headers={"X-Request-Id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]


def test_a_long_upload_arrives_whole(made: Scene) -> None:
    line = json.dumps({"prompt": "Once", "completion": "x" * 900})
    content = (line + "\n").encode() * (LONG_BYTES // len(line))
    files = {"file": ("long.jsonl", content)}
    done = made.http.post("/v1/files", data={"purpose": "fine-tune"}, files=files)
    assert done.status_code == 200, done.text
    assert made.plain.http.get(f"/v1/files/{done.json()['id']}/content").content == content


def test_bases_are_asked_by_name_and_adapters_find_theirs(made: Scene) -> None:
    def answered_by(**more: Any) -> dict[str, Any]:
        answer = made.http.post("/v1/completions", json=completion(OTHER), **more)
        told: dict[str, Any] = answer.json()
        return told

    assert answered_by()["model"] == OTHER
    assert made.http.get("/version").json()["base"]["name"] == BASE
    named = made.http.get("/version", headers={"X-Overtone-Base": OTHER})
    assert named.json()["base"]["name"] == OTHER
    missing = made.http.get("/version", headers={"X-Overtone-Base": "none"})
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
    mismatch = made.http.post(
        "/v1/completions", json=completion(NAMES[0]), headers={"X-Overtone-Base": OTHER}
    )
    assert mismatch.json()["error"]["code"] == "base_mismatch"


def test_a_client_that_hangs_up_ends_its_work(made: Scene) -> None:
    """Sixteen of 64 answers run at a time; the first event comes when they have begun."""

    def count(name: str) -> float:
        return sum(metric(url, f"overtone_{name}") for url in urls(made))

    before = count("generation_tokens_total")
    body = completion(stream=True, n=64, max_tokens=900, ignore_eos=True, logprobs=None)
    with made.http.stream("POST", "/v1/completions", json=body) as answer:
        assert next(answer.iter_lines()).startswith("data: ")
    until(lambda: count("requests_running") + count("requests_waiting") == 0)
    assert 0 < count("generation_tokens_total") - before < 64 * 900 / 2


def urls(made: Scene) -> list[str]:
    return made.cluster.urls(BASE)


def metric(url: str, name: str) -> float:
    """Return the sum of a metric's samples."""
    lines = httpx2.get(f"{url}/metrics", trust_env=False, timeout=30).text.splitlines()
    found = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    return sum(float(value) for sample, _, value in found if sample.partition("{")[0] == name)


def test_metrics_are_those_of_all_replicas(made: Scene) -> None:
    text = made.http.get("/metrics").text
    found = re.findall(r'overtone_canary_ok{replica="(\w+)"} 1.0', text)
    assert len(set(found)) == 2


def test_a_base_whose_requests_wait_gets_another_replica(made: Scene) -> None:
    """Sixteen run at a time; the rest waits, and the target is a twentieth of a second."""
    body = completion(OTHER, n=64, temperature=1, max_tokens=300, ignore_eos=True)
    is_over = threading.Event()

    def ask() -> None:
        with httpx2.Client(base_url=made.cluster.url, timeout=60, trust_env=False) as client:
            while not is_over.is_set():
                assert client.post("/v1/completions", json=body).status_code in (200, 429)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        until(lambda: len(made.cluster.servers(OTHER)) == 2, DEADLINE_S)
    finally:
        is_over.set()
        thread.join(60)


def test_an_adapters_requests_go_where_it_is(made: Scene) -> None:
    """Routers hear of an adapter a moment after its first answer: other traffic passes it."""
    fresh = (f"fresh-{number}" for number in itertools.count())

    def ask(model: str) -> None:
        assert made.http.post("/v1/completions", json=completion(model)).status_code == 200

    def sticks(name: str) -> bool:
        files = parts(spectra.files(7))
        assert made.http.post("/v1/adapters", data={"name": name}, files=files).is_success
        ask(name)
        for _ in range(40):
            ask(BASE)
        before = [metric(url, "overtone_adapter_requests_total") for url in urls(made)]
        for _ in range(6):
            ask(name)
        after = [metric(url, "overtone_adapter_requests_total") for url in urls(made)]
        return 6 in [late - early for early, late in zip(before, after, strict=True)]

    until(lambda: all(sticks(next(fresh)) for _ in range(3)), DEADLINE_S)  # by chance: 1 in 2^15


def test_a_worker_trains_what_is_asked_for(made: Scene) -> None:
    rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(30)]
    files = {"file": ("sums.jsonl", "\n".join(map(json.dumps, rows)).encode())}
    file = made.http.post("/v1/files", data={"purpose": "fine-tune"}, files=files).json()["id"]
    hyper = {"n_epochs": 1, "batch_size": 8}
    body = {"model": BASE, "training_file": file, "suffix": "sums", "hyperparameters": hyper}
    job = made.http.post("/v1/fine_tuning/jobs", json=body).json()
    ended = ("succeeded", "failed", "cancelled")

    def state() -> dict[str, Any]:
        found: dict[str, Any] = made.http.get(f"/v1/fine_tuning/jobs/{job['id']}").json()
        return found

    until(lambda: state()["status"] in ended, 2 * DEADLINE_S)
    assert state()["status"] == "succeeded", state()
    model = state()["fine_tuned_model"]
    assert made.http.post("/v1/completions", json=completion(model)).status_code == 200


@pytest.mark.parametrize("what", ["actor", "server"])
def test_a_killed_replica_loses_no_request_that_had_not_begun(made: Scene, what: str) -> None:
    wanted = {name: whole(made.plain.http, name) for name in NAMES}
    callers = Callers(made.cluster.url, wanted)
    victim = made.replicas()[0]
    with callers.calling():
        until(lambda: len(callers.answered) >= 4 * len(NAMES), DEADLINE_S)
        (victim if what == "actor" else victim.children()[0]).kill()
        until(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, 30)
        count = len(callers.answered)
        until(lambda: len(callers.answered) >= count + 8 * len(NAMES), DEADLINE_S)
    assert callers.lost == []
    assert len(callers.cut) <= NUM_CALLERS
    until(lambda: len(made.replicas()) == 2 and victim not in made.replicas(), DEADLINE_S)
    print(f"{len(callers.answered)} answers, {len(callers.cut)} cut off")  # noqa: T201


def long(name: str, **more: Any) -> dict[str, Any]:
    fixed = {"prompt": "You may", "max_tokens": 40, "temperature": 0, "ignore_eos": True}
    return {"model": name, **fixed, **more}


def whole(client: httpx2.Client, name: str) -> str:
    answer = client.post("/v1/completions", json=long(name))
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    text: str = answer.json()["choices"][0]["text"]
    return text


class CutOff(Exception):
    """A stream that had begun has ended with the error that says so."""


def streamed(client: httpx2.Client, name: str) -> str:
    with client.stream("POST", "/v1/completions", json=long(name, stream=True)) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
        assert answer.status_code == 200, answer.status_code
    assert lines[-1:] == ["data: [DONE]"], lines[-1:]
    events: list[Any] = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    if "error" in events[-1]:
        assert events[-1]["error"]["code"] == "internal_error"
        assert "ask again" in events[-1]["error"]["message"]
        raise CutOff
    return "".join(event["choices"][0]["text"] for event in events)


@dataclass
class Callers:
    """Ask for all adapters in turn, whole and streamed, until the block ends.

    Args:
        url: of the cluster.
        wanted: name -> the text of its answer.
    """

    url: str
    wanted: dict[str, str]
    answered: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._call, args=(n,)) for n in range(NUM_CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join(60)

    def _call(self, number: int) -> None:
        turns = itertools.cycle(itertools.product((whole, streamed), self.wanted))
        turns = itertools.islice(turns, number * 3, None)
        with httpx2.Client(base_url=self.url, timeout=60, trust_env=False) as client:
            for ask, name in turns:
                if self.is_over.is_set():
                    return
                try:
                    assert ask(client, name) == self.wanted[name]
                    self.answered.append(name)
                except CutOff:
                    self.cut.append(name)
                except (AssertionError, httpx2.TransportError) as error:
                    self.lost.append(f"{ask.__name__} {name}: {error!r}")
