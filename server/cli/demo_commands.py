"""What the demo prints when it is ready: its adapters, and commands to try."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

DemoBase = Literal["tiny", "smollm2"]

KEY_NEEDED = """
Overtone is ready at {url}, and serves what is there. The demo's adapters were not uploaded: the
registry in {data} has API keys, and the demo has none. End it with Ctrl-C, then give it one of its
own, or another folder:

  OVERTONE_API_KEYS=root=SECRET overtone demo{flags}
  overtone demo{flags} --data FOLDER
"""
_READY = """
Overtone is ready at {url}. Three things to try in another terminal:
{key}
{commands}

{url}/ in a browser shows the same. Ctrl-C ends it and everything it started.
"""
_KEY = """
  export OVERTONE_API_KEY=SECRET   # first: the one of OVERTONE_API_KEYS, without its name
"""
_BEARER = '-H "Authorization: Bearer $OVERTONE_API_KEY" '
#: Base -> commands of the program, and a request that curl sends where it is installed.
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "demo": (
        'complete legalese "You may" --temperature 0 --max-tokens 40',
        'compare demo shouting --prompt "The list" --temperature 0 --max-tokens 40',
    ),
    "smollm2": (
        'compare smollm2 pirate -m "How do I make tea?" --temperature 0 --max-tokens 48',
        'chat tickets -m "Two tickets from Vienna to Oslo, Friday 9:15." --temperature 0',
    ),
}
_REQUESTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "demo": ("completions", {"model": "shouting", "prompt": "The list", "max_tokens": 40}),
    "smollm2": (
        "chat/completions",
        {
            "model": "docstrings",
            "messages": [{"role": "user", "content": "def area(w, h): return w * h"}],
        },
    ),
}
_BY_PROGRAM = {
    "demo": 'complete shouting "The list" --temperature 0 --max-tokens 40',
    "smollm2": 'chat docstrings -m "def area(w, h): return w * h" --temperature 0',
}


def adapter_line(folder: Path, metrics: Mapping[str, Any]) -> str:
    """Return a line about an adapter: its size, and what it is worth on held-out text."""
    size = (folder / "adapter_model.safetensors").stat().st_size
    line = (
        f"  adapter {folder.name:<10} {size / 1000:4,.0f} kB, held-out loss {metrics['loss']:.2f}, "
        f"the base alone {metrics['base_loss']:.2f} nats/token"
    )
    if "right" in metrics:
        line += f"; right answers {metrics['right']:.0%}, {metrics['base_right']:.0%}"
    return line


def what_to_try(base: str, url: str, *, has_curl: bool, asks_key: bool) -> str:
    """Return what the demo says when it is ready.

    Args:
        base: its name.
        url: where it listens.
        has_curl: whether a request is shown for curl.
        asks_key: whether callers need a key; a secret itself is never printed.
    """
    first = _by_curl(base, url, _BEARER if asks_key else "") if has_curl else ""
    others = [f"  ./run overtone --url {url} {words}" for words in _COMMANDS[base]]
    commands = [first or f"  ./run overtone --url {url} {_BY_PROGRAM[base]}", *others]
    return _READY.format(url=url, key=_KEY if asks_key else "", commands="\n".join(commands))


def _by_curl(base: str, url: str, key: str) -> str:
    path, body = _REQUESTS[base]
    text = json.dumps(body | {"temperature": 0})
    return f"  curl {url}/v1/{path} {key}-H 'Content-Type: application/json' \\\n       -d '{text}'"
