"""Debian's redis-server in the shapes in which a registry may be run, each on ports of its own."""

import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import redis

from registry.redis.client import open_client
from waiting import until

ROOT = Path(__file__).parent.parent
#: Those of docs/operations.md.
ACL = ROOT / "deploy" / "users.acl"
PASSWORD, SENTINEL_PASSWORD, ADMIN = "correct", "of-sentinels", "admin:of-tests"
SERVICE = "names"
#: After so long without an answer a Sentinel takes the master for gone.
GONE_MS = 500


#: A cluster's nodes talk to each other 10,000 ports above those of their clients.
MAX_PORT = 55_000


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port <= MAX_PORT:
            return port


class Process:
    """One redis-server; its folder is named for its port."""

    def __init__(self, folder: Path, *words: str, port: int | None = None, tls: str = "") -> None:
        binary = shutil.which("redis-server")
        assert binary is not None
        self.port = port or free_port()
        place = folder / str(self.port)
        place.mkdir(exist_ok=True)
        ports = ["--port", "0", "--tls-port"] if tls else ["--port"]
        command = [binary, *words, *ports, str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(place)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def client(self, **settings: str) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2, **settings)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Shape:
    """A running registry.

    Args:
        url: as a program of Overtone gets it.
        admin_url: of a user who may empty it.
    """

    url: str
    admin_url: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []
        self.start()

    def start(self) -> None:
        raise NotImplementedError

    def run(self, *words: str, **settings: str) -> Process:
        process = Process(self.folder, "--save", "", *words, **settings)
        self.processes.append(process)
        return process

    def ready(self) -> None:
        with open_client(self.admin_url) as client:
            until(lambda: _answers(lambda: client.exists("any") == 0))

    def close(self) -> None:
        for process in self.processes:
            process.kill()


class Tls(Shape):
    """Clients need a certificate, too."""

    def start(self) -> None:
        made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        made += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext"]
        made += ["subjectAltName=DNS:localhost", "-keyout", "key", "-out", "certificate"]
        subprocess.run(made, check=True, capture_output=True, cwd=self.folder)
        certificate, key = str(self.folder / "certificate"), str(self.folder / "key")
        words = ["--tls-cert-file", certificate, "--tls-key-file", key]
        server = self.run(*words, "--tls-ca-cert-file", certificate, tls="yes")
        self.without_certificate = f"rediss://localhost:{server.port}?ssl_ca_certs={certificate}"
        self.url = f"{self.without_certificate}&ssl_certfile={certificate}&ssl_keyfile={key}"
        self.admin_url = self.url
        self.ready()


class Acl(Shape):
    """Only the user of deploy/users.acl, and one for the tests."""

    def start(self) -> None:
        users = self.folder / "users.acl"
        name, _, secret = ADMIN.partition(":")
        own = ACL.read_text().replace("PASSWORD", PASSWORD)
        users.write_text(f"{own}user {name} on >{secret} ~* &* +@all\n")
        server = self.run("--aclfile", str(users))
        self.url = f"redis://overtone:{PASSWORD}@127.0.0.1:{server.port}"
        self.admin_url = f"redis://{ADMIN}@127.0.0.1:{server.port}"
        self.ready()


class Sentinels(Shape):
    """A master, a replica and three Sentinels; both kinds have a password."""

    def start(self) -> None:
        words = ["--requirepass", PASSWORD, "--masterauth", PASSWORD]
        words += ["--repl-diskless-sync-delay", "0"]
        self.master = self.run(*words)
        with self.master.client(password=PASSWORD) as client:
            until(lambda: _answers(client.ping))
        self.replica = self.run(*words, "--replicaof", f"127.0.0.1 {self.master.port}")
        self.sentinels = [self._sentinel() for _ in range(3)]
        places = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        user = f"redis+sentinel://:{PASSWORD}@{places}"
        self.url = f"{user}/{SERVICE}?sentinel_password={SENTINEL_PASSWORD}"
        self.admin_url = self.url
        self.ready()

    def wait_until_guarded(self) -> None:
        """Return once every Sentinel knows the others and the replica, for which it asks rarely."""
        for each in self.sentinels:
            with each.client(password=SENTINEL_PASSWORD) as client:
                until(lambda client=client: _knows_all(client))

    def _sentinel(self) -> Process:
        port = free_port()
        file = self.folder / f"{port}.conf"
        lines = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 2",
            f"sentinel auth-pass {SERVICE} {PASSWORD}",
            f"sentinel down-after-milliseconds {SERVICE} {GONE_MS}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
            f"requirepass {SENTINEL_PASSWORD}",
        ]
        file.write_text("\n".join(lines))
        process = Process(self.folder, str(file), "--sentinel", port=port)
        self.processes.append(process)
        return process


class Cluster(Shape):
    """Three masters, each with a third of the slots; all but one are named in the URL."""

    def start(self) -> None:
        words = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
        nodes = [self.run(*words) for _ in range(3)]
        with ExitStack() as stack:
            clients = [stack.enter_context(node.client()) for node in nodes]
            for client in clients:
                until(lambda client=client: _answers(client.ping))
            for client, (first, last) in zip(clients, _THIRDS, strict=True):
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
                client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)
            for client in clients:
                until(lambda client=client: _is_whole(client))
        places = ",".join(f"127.0.0.1:{node.port}" for node in nodes[1:])
        self.nodes = nodes
        self.url = self.admin_url = f"redis+cluster://{places}"
        self.ready()


_THIRDS = ((0, 5460), (5461, 10922), (10923, 16383))
SHAPES = {"tls": Tls, "acl": Acl, "sentinel": Sentinels, "cluster": Cluster}


def _answers(ask: Callable[[], object]) -> bool:
    with suppress(redis.RedisError, redis.exceptions.RedisClusterException):
        return bool(ask())
    return False


def _knows_all(client: redis.Redis) -> bool:
    state = client.sentinel_masters()[SERVICE]
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


def _is_whole(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == 3)
