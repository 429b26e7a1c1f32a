"""The demo: the shipped base and adapters, served by the ordinary server, with commands to try."""

import importlib.util
import json
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters_core.starting import uncollected_imports
from server.process.listening import url_of
from server.settings import BadSetting, Settings, read_settings

if TYPE_CHECKING:
    from registry import Registry

_BASE_NAME = "demo"


def demo_settings(
    host: str | None = None,
    port: int | None = None,
    data: str | None = None,
    mode: str | None = None,
) -> Settings:
    """Return the demo's settings.

    Raises:
        BadSetting: one cannot be used, or the demo's files are not installed.
    """
    return read_settings(
        base=str(demo_folder() / "base"),
        base_name=_BASE_NAME,
        host=host,
        port=port,
        data=data or str(Path.home() / ".overtone" / "demo"),
        mode=mode,
        with_worker=True,
    )


def run_demo(settings: Settings, listeners: Sequence[socket.socket]) -> int:
    """Serve the demo until Ctrl-C; return the exit code."""
    with uncollected_imports():
        from server.process.launch import launch

    _say(f"Loading the demo base; data under {settings.data}")
    url = url_of(listeners[0])
    return launch(settings, lambda service: _begin(settings, url, service.registry), listeners)


def demo_folder() -> Path:
    """Return the folder of the demo's base and adapters: data of the trainer package.

    Raises:
        BadSetting: they are not installed.
    """
    spec = importlib.util.find_spec("trainer")
    places = (spec.submodule_search_locations if spec else None) or []
    for place in places:
        if (Path(place) / "demo" / "base" / "config.json").exists():
            return Path(place) / "demo"
    raise BadSetting("the demo base is not installed: run from a checkout, or serve --base DIR")


def _begin(settings: Settings, url: str, registry: "Registry") -> None:
    """Publish the demo's adapters; without a key for that say what is missing, and serve."""
    if registry.key_mirror.has_any and not settings.api_keys:
        _say(_KEY_NEEDED.format(url=url, data=settings.data))
    else:
        _welcome(settings, url)


def _welcome(settings: Settings, url: str) -> None:
    """Upload the adapters over REST and print commands to try."""
    from overtone_client import Client

    keys = [key.get_secret_value() for key in settings.api_keys]
    adapters = sorted(path for path in (demo_folder() / "adapters").iterdir() if path.is_dir())
    with Client(url, api_key=keys[0] if keys else None) as client:
        for adapter in adapters:
            metrics = json.loads((adapter / "metrics.json").read_text())
            client.upload(adapter, name=adapter.name, metadata=metrics)
            _say(
                f"  adapter {adapter.name:<10} held-out loss {metrics['loss']:.2f}, "
                f"the base alone {metrics['base_loss']:.2f} nats/token"
            )
    ask = _BY_CURL if shutil.which("curl") else _BY_PROGRAM
    _say(_WHAT_TO_TRY.format(ask=ask.format(url=url), url=url))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


_BY_CURL = """\
  curl {url}/v1/completions -H 'Content-Type: application/json' \\
       -d '{{"model": "shouting", "prompt": "The list", "max_tokens": 40, "temperature": 0}}'"""
#: Where there is no curl.
_BY_PROGRAM = """\
  ./run overtone --url {url} complete shouting "The list" --temperature 0 --max-tokens 40"""
_KEY_NEEDED = """
Overtone is ready at {url}, and serves what is there. The demo's adapters were not uploaded: the
registry in {data} has API keys, and the demo has none. End it with Ctrl-C, then give it one of its
own, or another folder:

  OVERTONE_API_KEYS=root=SECRET overtone demo
  overtone demo --data FOLDER
"""
_WHAT_TO_TRY = """
Overtone is ready at {url}. Three things to try in another terminal:

{ask}
  ./run overtone --url {url} complete legalese "You may" --temperature 0 --max-tokens 40
  {url}/ in a browser

Ctrl-C ends it and everything it started.
"""
