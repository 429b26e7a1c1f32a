"""Where a base comes from: what is wrong with a folder, a hub id or a device, in one sentence.

`check_source` is for the first moment of a start; it imports no library that takes its time.
"""

import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_CONNECT_S = 5.0
_SHOWN = 8
_LONGEST = 400


class BaseNotLoadable(Exception):
    """The base cannot be loaded; the message says what to do."""


def check_source(source: str) -> None:
    """Refuse what is neither a base's folder nor the form of a hub id.

    Raises:
        BaseNotLoadable: the message names what is missing.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            found = sorted(path.name for path in folder.iterdir())[:_SHOWN]
            raise BaseNotLoadable(
                f"folder {source!r} has no config.json (it has {', '.join(found) or 'no files'}): "
                "give the folder that save_pretrained wrote"
            )
    elif folder.exists():
        raise BaseNotLoadable(f"{source!r} is a file: give the folder that it lies in")
    elif _looks_like_path(source):
        raise BaseNotLoadable(
            f"there is no folder {source!r} (seen from {os.getcwd()}): give a folder with "
            "config.json, model.safetensors and tokenizer.json, or a hub id OWNER/NAME"
        )


def _looks_like_path(source: str) -> bool:
    return not _HUB_ID.fullmatch(source) or source.startswith((".", "~"))


def hub_options(source: str) -> dict[str, Any]:
    """Return what `from_pretrained` needs to take a base from where it can be had.

    Without this, a hub that cannot be reached is asked again and again for most of a minute.

    Raises:
        BaseNotLoadable: a hub id that is not in the cache, and the hub cannot be reached.
    """
    if Path(source).expanduser().is_dir():
        return {}
    from huggingface_hub import constants, try_to_load_from_cache

    host = urlsplit(constants.ENDPOINT)
    is_cached = isinstance(try_to_load_from_cache(source, "config.json"), str)
    if not constants.HF_HUB_OFFLINE and (_has_proxy() or _answers(host.hostname, host.port)):
        return {}
    if is_cached:
        return {"local_files_only": True}
    raise BaseNotLoadable(
        f"there is no folder {source!r}, this machine's cache has no base of that name "
        f"({constants.HF_HUB_CACHE}), and {host.hostname} cannot be reached: give a folder, or "
        "fetch the base where there is a network"
    )


def _has_proxy() -> bool:
    return any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"))


def _answers(host: str | None, port: int | None) -> bool:
    try:
        with socket.create_connection((host or "", port or 443), _CONNECT_S):
            return True
    except OSError:
        return False


def device_of(setting: str) -> str:
    """Return the device that `auto|cpu|cuda` means here.

    Raises:
        BaseNotLoadable: it is a device that this torch or this machine does not have.
    """
    import torch

    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if setting.startswith("cuda") and not torch.cuda.is_available():
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "sees no GPU (its driver?)" if built else "is built for CPUs only"
        raise BaseNotLoadable(
            f"device {setting!r} was asked for, and the installed torch {torch.__version__} {why}: "
            "install a build for this GPU, or set the device to cpu or auto"
        )
    return setting


def words_for(source: str, error: Exception) -> str:
    """Return one sentence for what transformers, or a file's reader, says of a base."""
    said = " ".join(str(error).split())[:_LONGEST]
    if type(error).__name__ == "SafetensorError":
        why = f"a weights file is cut off or is no safetensors file ({said}): copy it once more"
    elif "ignore_mismatched_sizes" in said:
        why = "a weight in its files has another shape than its config.json says; the log names it"
    elif isinstance(error, ImportError):
        why = f"it needs a package that is not installed ({said})"
    elif isinstance(error, OSError | ValueError):
        why = said
    else:
        why = f"{type(error).__name__}: {said}"
    return (
        f"base {source!r} cannot be loaded: {why.rstrip('.')}. A base is a folder with "
        "config.json, model.safetensors and tokenizer.json, or a hub id"
    )
