"""Real servers under one suite: the embedded Valkey, and the distribution's Redis in its shapes."""

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from adapters_core.format.description import AdapterDescription
from jobs_made import files_in, run, spec_for, upload
from redis_shapes import SHAPES
from registry.adapters.adapters import Adapters
from registry.adapters.records import NewVersion
from registry.jobs.claims import Claims
from registry.jobs.jobs import Jobs
from registry.redis.client import open_client
from registry.redis.embedded import EmbeddedServer, find_binary
from waiting import until


def describe(number, method="fourierft", **changes):
    facts = {
        "digest": f"sha256:{number:064x}",
        "method": method,
        "method_config": {"n": number, "scale": 300.0},
        "base_name": "tiny-base",
        "base_fingerprint": "f" * 64,
        "base_verified": True,
        "target_modules": ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj"),
        "num_coefficients": 2 * number,
        "size_bytes": 8 * number,
    }
    return AdapterDescription(**{**facts, **changes})


class PlainServer:
    """A server that is not restarted, with its data synced at every write."""

    def __init__(self, folder: Path, binary: Path):
        self._command = [str(binary), "--port", "0", "--unixsocket", str(folder / "plain.sock")]
        self._command += ["--dir", str(folder), "--save", "", "--logfile", "plain.log"]
        self._command += ["--appendonly", "yes", "--appendfsync", "always"]
        self.url = f"unix://{folder}/plain.sock"
        self.start()

    def start(self):
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with open_client(self.url) as client:
            until(lambda: _answers(client))

    def kill(self):
        self._process.kill()
        self._process.wait()

    close = kill


def _answers(client):
    try:
        return client.ping()
    except redis.RedisError:
        return False


def _start(kind, folder):
    if kind == "embedded":
        return EmbeddedServer(folder)
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server installed")
    return SHAPES[kind](folder) if kind in SHAPES else PlainServer(folder, Path(binary))


_SERVERS = ["embedded", pytest.param("redis", marks=pytest.mark.redis)]
_QUICK = [pytest.param(kind, marks=pytest.mark.redis) for kind in SHAPES]
_SLOW = [pytest.param(kind, marks=[pytest.mark.redis, pytest.mark.slow]) for kind in SHAPES]
#: The tests of all that is in Redis, in every shape; in short they are test_contract's. The others
#: need it beside something else, may empty it, or count databases, which a cluster has none of.
_SHAPES = {
    "test_contract": _QUICK,
    **dict.fromkeys(("test_adapters", "test_changes", "test_claims", "test_jobs"), _SLOW),
    **dict.fromkeys(("test_queue", "test_batches", "test_workers", "test_tenants"), _SLOW),
    **dict.fromkeys(("test_api_keys", "test_files", "test_log"), _SLOW),
}


def pytest_generate_tests(metafunc):
    if "redis_server" in metafunc.fixturenames:
        shapes = _SHAPES.get(metafunc.module.__name__.rpartition(".")[2], [])
        metafunc.parametrize("redis_server", _SERVERS + shapes, indirect=True, scope="session")


@pytest.fixture(scope="session")
def redis_server(request, tmp_path_factory):
    server = _start(request.param, tmp_path_factory.mktemp(request.param))
    yield server
    server.close()


@pytest.fixture
def url(redis_server):
    return redis_server.url


@pytest.fixture
def client(redis_server):
    with open_client(getattr(redis_server, "admin_url", redis_server.url)) as admin:
        admin.config_set("appendfsync", "no")  # what survives a crash is not asked here
        admin.flushall()
    with open_client(redis_server.url) as client:
        yield client


@pytest.fixture
def adapters(client):
    return Adapters(client)


@pytest.fixture
def plain_server(tmp_path):
    """A server of the test's own, to be killed and started again."""
    server = PlainServer(tmp_path, find_binary())
    yield server
    server.close()


@pytest.fixture
def put(adapters):
    """Publish a record with as few words as possible."""
    return putter(adapters)


def putter(adapters):
    def put(number, name="poet", *, method="fourierft", alias=None, now=1000.5, **notes):
        new = NewVersion(
            name=name,
            description=describe(number, method),
            created_at=int(now),
            created_by="tester",
            alias=alias,
            **notes,
        )
        return adapters.publish(new)

    return put


@pytest.fixture(name="describe")
def describe_fixture():
    return describe


@pytest.fixture(name="putter")
def putter_fixture():
    return putter


@pytest.fixture
def jobs(client):
    return Jobs(client)


@pytest.fixture
def claims(client):
    return Claims(client)


@pytest.fixture
def files(client, tmp_path):
    return files_in(client, tmp_path)


@pytest.fixture
def create(jobs, files):
    def create(now=2.0, **changes):
        return jobs.create(spec_for(upload(files), **changes), now=now)

    return create


@pytest.fixture
def queued(jobs, create):
    return lambda **changes: jobs.queue(create(**changes).id, now=2.5)


@pytest.fixture
def running(claims, queued):
    def running(**changes):
        queued(**changes)
        return run(claims)

    return running
