"""How long hostile requests keep a server from answering anything else.

What: while a request runs that once stopped a server, or could, GET /health/live is asked over one
connection, one after the other; its longest times are the event loop's longest stalls, beside what
the machine itself adds (`idle`, and `answering`: one stream of ordinary tokens).
Why: everything else waits meanwhile: other requests, streams, health checks. Target: 50 ms.

    overtone bench stalls [--only NAME ...] [--tokens 15000]
"""

import http.client
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bench.lib.bases import VOCABULARY, llama
from bench.lib.program import Parser
from bench.lib.servers import served
from bench.lib.timing import report

_POSITIONS = 32768
#: As long as the blanks that real vocabularies have; it decides how long a text is read at all.
_LONGEST = 128
_TARGET_MS = 50.0
#: Pause between two questions, and how long is measured where nothing ends by itself.
_PAUSE_S, _QUIET_S = 0.001, 2.0
_TIMEOUT_S = 600.0
_END = VOCABULARY - 1


@dataclass(frozen=True)
class Hostile:
    """Requests that are sent at the same time.

    Args:
        path: of the endpoint.
        body: of each of them.
        count: how many.
        status: that each answer has.
    """

    path: str
    body: Mapping[str, Any]
    count: int = 1
    status: int = 200

    @cached_property
    def content(self) -> bytes:
        """Return what is sent; made once, since making it stops this program's other threads."""
        return json.dumps({"model": "bench", **self.body}).encode()


def hostile(tokens: int) -> dict[str, Hostile]:
    """Return the requests by name; answers have so many tokens."""
    text, byte = "word " * 200_000, {"255": 100}
    long = {"max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    completion = {"prompt": "a", **long}
    messages = [{"role": "user", "content": "a"}]
    chat = {"messages": messages, **long}
    ids = [1 + number % 200 for number in range(tokens)]
    scored = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 5}
    stops = {"stop": ["a" * 255 + "b"] * 4, "logit_bias": {str(_id_of("a")): 100}}
    return {
        "text of 7 MB": Hostile("completions", {"prompt": text * 7}, status=400),
        "8 texts of 1 MB": Hostile("completions", {"prompt": text}, 8, 400),
        "8 chats of 1 MB": Hostile("chat/completions", _chat(text), 8, 400),
        "a million token ids": Hostile("completions", {"prompt": [7] * 1_000_000}, 1, 400),
        "a text that fits": Hostile("completions", {"prompt": "a" * 30_000, "max_tokens": 1}),
        "log-probabilities": Hostile("completions", completion | {"logprobs": 0}),
        "20 log-probabilities": Hostile(
            "chat/completions", chat | {"logprobs": True, "top_logprobs": 20}
        ),
        "invalid bytes": Hostile("completions", completion | {"logit_bias": byte, "stream": True}),
        "end tokens": Hostile("completions", completion | {"logit_bias": {str(_END): 100}}),
        "stop strings": Hostile("completions", completion | stops | {"stream": True}),
        "scores of a prompt": Hostile("completions", scored),
    }


def _chat(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def _id_of(char: str) -> int:
    return sorted(pre_tokenizers.ByteLevel.alphabet()).index(char)


def save_base(folder: Path, width: int) -> Path:
    """Write a base of one layer with room for long texts, whose bytes are tokens."""
    model = llama(width, 1)
    model.config.max_position_embeddings = _POSITIONS  # type: ignore[union-attr]
    model.save_pretrained(folder)  # type: ignore[operator]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    blanks = "\u0120" * _LONGEST
    words = [*alphabet, blanks]
    words += [f"<{number}>" for number in range(len(words), VOCABULARY)]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=words[_END])
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


class Asked:
    """A thread that asks whether the server lives, until the block ends."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self.seconds: list[float] = []

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Ask while the block runs."""
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _ask(self) -> None:
        with closing(connected(self._url)) as connection:
            while not self._over.wait(_PAUSE_S):
                started = time.perf_counter()
                connection.request("GET", "/health/live")
                connection.getresponse().read()
                self.seconds.append(time.perf_counter() - started)

    def row(self, name: str, seconds: float) -> dict[str, Any]:
        """Return the figures of one kind of request."""
        times = sorted(1e3 * each for each in self.seconds)
        return {
            "what": name,
            "seconds": seconds,
            "longest_ms": times[-1],
            "p99_ms": times[int(0.99 * len(times))],
            "p50_ms": statistics.median(times),
            "asked": len(times),
            "over_target": sum(each > _TARGET_MS for each in times),
        }


def connected(url: str) -> http.client.HTTPConnection:
    """Return a connection to the server."""
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)


def send(url: str, one: Hostile) -> None:
    """Send the requests at the same time, and wait until all are answered.

    Raises:
        RuntimeError: one was answered otherwise than expected.
    """
    found: list[tuple[int, bytes]] = []

    def ask() -> None:
        with closing(connected(url)) as connection:
            head = {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/{one.path}", one.content, head)
            answer = connection.getresponse()
            found.append((answer.status, answer.read()))

    threads = [threading.Thread(target=ask) for _ in range(one.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wrong = [body for status, body in found if status != one.status]
    if wrong or len(found) < one.count:
        raise RuntimeError(f"answered otherwise: {wrong[0][:500]!r}" if wrong else "no answer")


def measure(url: str, chosen: Mapping[str, Hostile], tokens: int) -> list[dict[str, Any]]:
    """Return a row for each kind of request, after those of the machine itself."""
    ordinary = Hostile("completions", {"prompt": "a", "max_tokens": tokens // 10, "stream": True})
    works: dict[str, Callable[[], None]] = {
        "idle": lambda: time.sleep(_QUIET_S),
        "answering": lambda: send(url, ordinary),
    }
    works |= {name: lambda one=one: send(url, one) for name, one in chosen.items()}  # type: ignore[misc]
    rows = []
    for one in chosen.values():
        _ = one.content  # made before anything is timed
    for name, work in works.items():
        asked, started = Asked(url), time.perf_counter()
        with asked.meanwhile():
            work()
        rows.append(asked.row(name, time.perf_counter() - started))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench stalls", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these requests alone")
    parser.add_argument("--tokens", type=int, default=15_000, help="of a long answer")
    parser.add_argument("--width", type=int, default=256, help="of the base")
    options = parser.parse_args(arguments)
    chosen = hostile(options.tokens)
    if options.only:
        unknown = [name for name in options.only if name not in chosen]
        if unknown:
            parser.error(f"there is no request {unknown[0]!r}; there are {', '.join(chosen)}")
        chosen = {name: chosen[name] for name in options.only}
    with tempfile.TemporaryDirectory(prefix="overtone-bench-") as scratch:
        base = save_base(Path(scratch) / "base", options.width)
        with served(base, Path(scratch) / "data", calibration_s=0) as server:
            rows = measure(server.url, chosen, options.tokens)
    report("stalls", rows)


if __name__ == "__main__":
    main()
