"""The demo: a base and adapters that were trained on it, served by the ordinary server.

The tiny base is shipped, and needs no download; the other one is a real model, downloaded once.
"""

import importlib.util
import json
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapters_core.starting import uncollected_imports
from server.cli import demo_commands
from server.cli.demo_commands import DemoBase
from server.cli.demo_download import SMOLLM2, fetch, kept_file
from server.process.listening import url_of
from server.settings import BadSetting, Settings, read_settings

if TYPE_CHECKING:
    from registry import Registry

#: Base -> what requests call it, and its data folder, below `~/.overtone`.
_NAMES = {"tiny": "demo", "smollm2": "smollm2"}
_FOLDERS = {"tiny": "demo", "smollm2": "demo-smollm2"}


def demo_settings(
    host: str | None = None,
    port: int | None = None,
    data: str | None = None,
    mode: str | None = None,
    base: DemoBase = "tiny",
) -> Settings:
    """Return the demo's settings; the larger base may not be there yet, see `fetch_base`.

    Raises:
        BadSetting: one cannot be used, or the demo's files are not installed.
    """
    folder = Path(data).expanduser() if data else Path.home() / ".overtone" / _FOLDERS[base]
    source = demo_folder() / "base" if base == "tiny" else kept_file(SMOLLM2, folder)
    return read_settings(
        base=str(source),
        base_name=_NAMES[base],
        host=host,
        port=port,
        data=str(folder),
        mode=mode,
        with_worker=True,
    )


def fetch_base(settings: Settings) -> None:
    """Download the base of these settings, unless it is there.

    Raises:
        CannotStart: it cannot be had.
    """
    if settings.base == str(kept_file(SMOLLM2, settings.data)):
        fetch(SMOLLM2, settings.data, _say)


def run_demo(settings: Settings, listeners: Sequence[socket.socket]) -> int:
    """Serve the demo until Ctrl-C; return the exit code."""
    with uncollected_imports():
        from server.process.launch import launch

    _say(f"Loading the base {settings.base_name}; data under {settings.data}")
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
        flags = "" if settings.base_name == _NAMES["tiny"] else f" --base {settings.base_name}"
        _say(demo_commands.KEY_NEEDED.format(url=url, data=settings.data, flags=flags))
    else:
        _welcome(settings, url)


def _welcome(settings: Settings, url: str) -> None:
    """Upload the adapters over REST and print commands to try."""
    from overtone_client import Client

    keys = [key.get_secret_value() for key in settings.api_keys]
    with Client(url, api_key=keys[0] if keys else None) as client:
        for adapter in _adapters(settings):
            metrics = json.loads((adapter / "metrics.json").read_text())
            client.upload(adapter, name=adapter.name, metadata=metrics)
            _say(demo_commands.adapter_line(adapter, metrics))
    _say(
        demo_commands.what_to_try(
            str(settings.base_name), url, has_curl=bool(shutil.which("curl")), asks_key=bool(keys)
        )
    )


def _adapters(settings: Settings) -> list[Path]:
    """Return the folders of the base's adapters."""
    folder = demo_folder()
    if settings.base_name != _NAMES["tiny"]:
        folder /= str(settings.base_name)
    return sorted(path.parent for path in folder.glob("adapters/*/metrics.json"))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
