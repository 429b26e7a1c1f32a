"""All keys of the registry as they were at one moment, as the Redis commands that make them anew.

Commands are independent of the server's program and version, which the payloads of `DUMP` and a
file of `BGSAVE` are not: what was kept by Valkey can be given to Redis. The queues are RQ's and not
among them: they hold what the jobs' records say.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from registry.errors import CorruptRecord
from registry.redis import keys
from registry.redis.scripts import Scripts

#: Elements of one command.
_AT_ONCE = 1000
#: One Redis command: its name and its arguments.
Command = tuple[bytes, ...]


@dataclass(frozen=True)
class Snapshot:
    """What the registry held at one moment.

    Args:
        commands: make its keys, each key's together.
    """

    commands: Sequence[Command]

    @classmethod
    def take(cls, client: redis.Redis) -> Self:
        """Read all keys in one transaction; other callers of the server wait meanwhile.

        Args:
            client: that waits so long (`Registry.patient`).

        Raises:
            CorruptRecord: a key is of a type that no program of ours writes.
            RegistryUnavailable: the server does not answer.
        """
        # The key is named for a cluster, which runs the script on the node that has it.
        _, *found = Scripts(client).run("snapshot", [keys.IDENTITY], [f"{keys.PREFIX}*"])
        return cls([command for entry in sorted(found) for command in _commands_of(*entry)])

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            CorruptRecord: the file is not what this program writes.
        """
        try:
            with path.open(encoding="ascii") as lines:
                return cls([_command_in(line) for line in lines])
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise CorruptRecord(f"{path.name} of the backup cannot be read: {error}") from error

    def write(self, path: Path) -> None:
        """Write one command a line, as a JSON array of strings."""
        with path.open("w", encoding="ascii") as file:
            for command in self.commands:
                words = [part.decode("utf-8", "surrogateescape") for part in command]
                file.write(f"{json.dumps(words)}\n")

    def put(self, client: redis.Redis) -> None:
        """Replace all of a registry's keys by these in one transaction.

        Args:
            client: that waits so long (`Registry.patient`).

        Raises:
            RegistryFull: it has no room; nothing was changed.
            RegistryUnavailable: it does not answer; all is changed or nothing.
        """
        with Scripts(client).asking("snapshot_put"):
            present = list(client.scan_iter(f"{keys.PREFIX}*", count=_AT_ONCE))
            with client.pipeline(transaction=True) as pipe:
                for key in present:
                    pipe.unlink(key)
                for name, *words in self.commands:
                    pipe.execute_command(name.decode(), *words)  # as a cluster looks it up
                pipe.execute()

    def hash(self, key: str) -> dict[str, bytes]:
        """Return a hash's fields; empty if it is not there."""
        return {
            field.decode(): value
            for words in self._of(b"HSET", key)
            for field, value in zip(words[2::2], words[3::2], strict=True)
        }

    def members(self, key: str) -> list[str]:
        """Return the members of a sorted set."""
        return [each.decode() for words in self._of(b"ZADD", key) for each in words[3::2]]

    def is_without(self, *known: str) -> bool:
        """Return whether there is no key but these."""
        return {words[1].decode() for words in self.commands} <= {*known}

    def _of(self, name: bytes, key: str) -> Iterator[Command]:
        wanted = (name, key.encode())
        return (words for words in self.commands if words[:2] == wanted)


def _commands_of(
    key: bytes, kind: bytes, expires_ms: int, content: Any = None, last_id: bytes = b""
) -> Iterator[Command]:
    """Return what makes one key anew, from what snapshot.lua says of it."""
    if kind.decode() not in _MAKING:
        raise CorruptRecord(f"{key.decode()!r} is a {kind.decode()}, which no program of ours uses")
    for words in _MAKING[kind.decode()](content):
        yield (words[0], key, *words[1:])
    if last_id:
        yield (b"XSETID", key, last_id)
    if expires_ms >= 0:
        yield (b"PEXPIREAT", key, b"%d" % expires_ms)


def _in_parts(name: bytes, words: Sequence[bytes]) -> Iterator[Command]:
    for start in range(0, len(words), _AT_ONCE):
        yield (name, *words[start : start + _AT_ONCE])


def _hash(words: Sequence[bytes]) -> Iterator[Command]:
    """Return a hash's commands, by its fields: the same content is the same bytes."""
    pairs = sorted(zip(words[::2], words[1::2], strict=True))
    return _in_parts(b"HSET", [each for pair in pairs for each in pair])


def _scored(words: Sequence[bytes]) -> Iterator[Command]:
    """Return a sorted set's commands: it is read as member, score and written the other way."""
    pairs = zip(words[1::2], words[::2], strict=True)
    return _in_parts(b"ZADD", [each for pair in pairs for each in pair])


#: Type of a key -> content -> commands, without the key.
_MAKING: dict[str, Callable[[Any], Iterator[Command]]] = {
    "string": lambda content: iter([(b"SET", content)]),
    "hash": _hash,
    "list": lambda content: _in_parts(b"RPUSH", content),
    "set": lambda content: _in_parts(b"SADD", sorted(content)),
    "zset": _scored,
    "stream": lambda content: ((b"XADD", id_, *words) for id_, words in content),
}


def _command_in(line: str) -> Command:
    command = tuple(word.encode("utf-8", "surrogateescape") for word in json.loads(line))
    if len(command) < 2 or command[0] not in _NAMES or not command[1].startswith(_PREFIX):
        raise ValueError(f"{command[:2]} makes no key of a registry")
    return command


_NAMES = {b"SET", b"HSET", b"RPUSH", b"SADD", b"ZADD", b"XADD", b"XSETID", b"PEXPIREAT"}
_PREFIX = keys.PREFIX.encode()
