"""A process that compiles constraints first: `python -m server.constraints.trial`.

What a request asks for may take for ever, all memory or the whole stack to compile. Here it does so
in a fork of this process, whose time and memory the kernel limits. It reads lines of JSON, the
base's tokens first, then constraints, and answers each with a line.
"""

import json
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Iterator
from random import Random
from typing import Any, NoReturn

from llguidance import LLMatcher, LLTokenizer

from server.constraints.grammar import grammar_of, matcher_of
from server.constraints.trie import Vocabulary, no_usual_tokens

#: For one constraint: its compilation and the first masks.
MAX_CPU_S = 2
MAX_BYTES = 2**28
#: Far less than the server's threads have: what fits here fits there.
_STACK_BYTES = 1 << 20
#: Steps behind the server's own work, which others wait for.
_NICE = 10
#: Tokens of a random answer that are tried.
_NUM_TRIED = 24
#: Nothing asked for so long, the process ends.
_IDLE_S = 300.0

Reply = dict[str, Any]


def main() -> None:
    """Answer until nothing more is asked."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    lines = _lines()
    trie = _trie(json.loads(next(lines)))
    _answer("ready")
    for line in lines:
        _answer(_forked(trie, json.loads(line)))


def request_of(vocabulary: Vocabulary) -> str:
    """Return the first line for this process: the base's tokens."""
    special = {str(token): name for token, name in vocabulary.special.items()}
    return json.dumps({"written": [one.hex() for one in vocabulary.written], "special": special})


def _lines() -> Iterator[bytes]:
    """Yield what is asked; a line is asked when the one before it is answered."""
    source = sys.stdin.buffer
    while select.select([source], [], [], _IDLE_S)[0] and (line := source.readline()):
        yield line


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _trie(given: dict[str, Any]) -> LLTokenizer:
    special = {int(token): name for token, name in given["special"].items()}
    written = [bytes.fromhex(one) for one in given["written"]]
    return Vocabulary(written, special, no_usual_tokens).trie()


def _forked(trie: LLTokenizer, asked: dict[str, Any]) -> str:
    """Return what a fork says of a constraint; `ended` is how it ended if it says nothing."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            _limit()
            _on_small_stack(lambda: _say(writer, _tried(trie, **asked)))
        finally:
            os._exit(1)  # it raised: memory may be short for Python, too
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    return said if status == 0 else json.dumps({"ended": os.waitstatus_to_exitcode(status)})


def _say(writer: int, reply: Reply) -> NoReturn:
    """Write a fork's reply, and end it."""
    os.write(writer, json.dumps(reply).encode())
    os._exit(0)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    if sys.platform == "linux":
        most = _memory()[0] + MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _on_small_stack(run: Any) -> None:
    threading.stack_size(_STACK_BYTES)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def _tried(trie: LLTokenizer, kind: Any, text: str) -> Reply:
    """Return a constraint in llguidance's form and its bytes, or why it cannot be compiled."""
    before = _memory()[1]
    try:
        grammar = grammar_of(kind, text)
    except ValueError as error:
        return {"fault": str(error)}
    matcher = matcher_of(trie, grammar)
    if not matcher.is_error():
        _follow(matcher, trie.eos_token)
    if matcher.is_error():
        return {"fault": matcher.get_error()}
    return {"grammar": grammar, "bytes": max(0, _memory()[1] - before)}


def _follow(matcher: LLMatcher, end: int) -> None:
    """Take a few tokens of a random answer; those from `end` on are none."""
    random = Random(0)
    for _ in range(_NUM_TRIED):
        bits = int.from_bytes(matcher.compute_bitmask(), "little") & ~(-1 << end)
        if matcher.is_stopped() or not bits:
            return
        matcher.consume_token(_one_of(bits, random))


def _one_of(bits: int, random: Random) -> int:
    """Return the number of one of the bits that are set."""
    chosen = random.randrange(bits.bit_length())
    higher = bits >> chosen
    return chosen + (higher & -higher).bit_length() - 1


def _memory() -> tuple[int, int]:
    """Return this process's bytes of address space and in memory; zeros where unknown."""
    if sys.platform != "linux":
        return 0, 0
    with open("/proc/self/statm") as file:
        space, resident = (int(pages) for pages in file.read().split()[:2])
    return space * resource.getpagesize(), resident * resource.getpagesize()


if __name__ == "__main__":
    main()
