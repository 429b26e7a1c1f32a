"""A cluster's client that connects when it is first used, as those of single servers do."""

import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from redis.cluster import ClusterNode, RedisCluster
from redis.commands.core import Script


class LazyCluster:
    """All commands of redis-py's `RedisCluster`, which asks for the nodes when it is made.

    Safe to use from many threads.

    Args:
        hosts: (host, port) of some of the nodes.
        settings: of the connections. `retry` does not count what a node sends on to another one,
            since it has not run it.
    """

    def __init__(self, hosts: Sequence[tuple[str, int]], settings: Mapping[str, Any]) -> None:
        self._hosts, self._settings = hosts, settings
        self._guard = threading.Lock()
        self._cluster: RedisCluster | None = None

    def register_script(self, script: bytes) -> Script:
        """Return the script, to be run on the node of its keys."""
        return Script(self, script)  # type: ignore[arg-type]

    def close(self) -> None:
        """End the connections; the next command makes new ones. Safe to call twice."""
        with self._guard:
            cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened(), name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _opened(self) -> RedisCluster:
        with self._guard:
            if self._cluster is None:
                nodes = [ClusterNode(*host) for host in self._hosts]
                self._cluster = RedisCluster(startup_nodes=nodes, **self._settings)
            return self._cluster
