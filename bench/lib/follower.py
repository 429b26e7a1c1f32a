"""A process that follows a registry as a server does, without the model: its mirrors and a thread.

Reads one command a line and answers each by one line of JSON:

    look_up COUNT   resolves so many adapters, from the first on: {}
    mark            {"rss": bytes, "cpu_s": of this process so far, "at": monotonic seconds}
    heard           [[name, monotonic seconds], ...]: the changes since the start, in their order
    resolve NAME…   the version of each, from the mirror

    python -m bench.lib.follower URL FOLDER
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.lib.names import name_of
from registry.adapters.changes import Change
from registry.adapters.directory import Following
from registry.connect import Registry, connect

_POLL_S = 0.0005


class Heard:
    """When each change was heard; called where a server's mirror of API keys is."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, float]] = []

    def heard(self, change: Change) -> None:
        """Note a change."""
        self.changes.append((change.name, time.monotonic()))

    def catch_up(self) -> None:
        """Nothing is known that could be outdated."""


def follow(url: str, folder: str) -> None:
    """Follow until the input ends."""
    loaded_at = time.monotonic()
    with connect(url, Path(folder)) as registry:
        heard = Heard()
        registry.directory.listen(heard)
        registry.key_mirror.refresh()
        registry.directory.start()
        while registry.directory.following is not Following.CAUGHT_UP:
            time.sleep(_POLL_S)
        _say({"loaded_at": loaded_at, "caught_up_at": time.monotonic()})
        commands = _commands(registry, heard)
        for line in sys.stdin:
            name, *words = line.split()
            _say(commands[name](words))


def _commands(registry: Registry, heard: Heard) -> dict[str, Callable[[Sequence[str]], Any]]:
    def look_up(words: Sequence[str]) -> Any:
        for number in range(int(words[0])):
            registry.directory.resolve(name_of(number))
        return {}

    def mark(_: Sequence[str]) -> Any:
        own = psutil.Process()
        used = own.cpu_times()
        cpu_s, rss = used.user + used.system, own.memory_info().rss
        return {"rss": rss, "cpu_s": cpu_s, "at": time.monotonic()}

    return {
        "look_up": look_up,
        "mark": mark,
        "heard": lambda _: heard.changes,
        "resolve": lambda names: [registry.directory.resolve(name).version for name in names],
    }


def _say(answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    follow(*sys.argv[1:])
