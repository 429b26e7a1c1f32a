"""What a program can say before anything heavy is imported, and how it ends when told to by then.

Importing torch and transformers takes seconds, loading a base takes more. A base that is not
there, a device that this machine has not and a folder that cannot be written are found out here in
milliseconds. Nothing here imports torch or transformers.
"""

import ctypes
import difflib
import gc
import importlib.util
import os
import re
import runpy
import signal
import ssl
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from adapters_core.gguf_faults import NoBase, check_gguf

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|(mps|xpu)(:\d+)?")
_WANTED = (
    "Give a folder with config.json, model.safetensors and tokenizer.json, a GGUF file, or a hub "
    "id that this machine can reach, with --base or OVERTONE_BASE"
)
_DEVICES = "Give auto, cpu, cuda, cuda:1 … with --device or OVERTONE_DEVICE"
#: For the hub to answer at all; one that is slower is left to the loader.
_HUB_S = 1.0


class CannotStart(Exception):
    """This machine cannot do what was asked for.

    Args:
        what: what is wrong, with the value.
        step: what to do about it, a sentence.
    """

    def __init__(self, what: str, step: str) -> None:
        super().__init__(f"{what}. {step}")
        self.what, self.step = what, step


@contextmanager
def ended_at_once(words: str) -> Iterator[None]:
    """SIGINT and SIGTERM end this process meanwhile: one line, exit code 130 or 143.

    For what starts nothing that has to be ended first, or takes these signals over when it does.

    Args:
        words: the line.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        end_now(words, number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def uncollected_imports() -> Iterator[None]:
    """Import without garbage collections, and keep them off what was imported ever after.

    The modules of torch and transformers are half a million objects that stay: collections while
    they are made take a fifth of the imports' time and find next to nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def end_now(words: str, number: int) -> None:
    """End this process by the signal's exit code; no thread is waited for.

    The line is written past Python's streams, which the signal may have interrupted.
    """
    os.write(2, f"{words}\n".encode())
    os._exit(128 + number)


def check_base(source: str) -> None:
    """Check that a base is there: a folder, a GGUF file, or a hub id that was or can be downloaded.

    Raises:
        CannotStart: it is not, or nothing of the kind.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise _no_base(source, "the folder has no config.json")
    elif folder.exists():
        _check_file(source, folder)
    elif not _HUB_ID.fullmatch(source):
        raise _no_base(source, f"there is no such folder{_like(folder)}")
    else:
        _check_hub(source)


def check_device(device: str) -> None:
    """Check that torch was built for a device, and that a GPU's driver is there.

    Raises:
        CannotStart: one of these is missing, or the name is none.
    """
    if not _DEVICE.fullmatch(device):
        raise CannotStart(f"device {device!r} is none", _DEVICES)
    if not device.startswith("cuda"):
        return
    build = torch_build()
    if build and not (build["cuda"] or build["hip"]):
        raise CannotStart(
            f"device {device!r}: the installed torch, {build['__version__']}, computes on CPUs "
            "only",
            "Install a build for your GPU (docs/operations.md, A GPU), or give --device cpu",
        )
    if build and build["cuda"] and sys.platform == "linux" and not _has_nvidia_driver():
        raise CannotStart(
            f"device {device!r}: this machine has no NVIDIA driver (libcuda.so.1 is not found)",
            "Install it, or give --device cpu",
        )


def check_folder(what: str, folder: Path) -> None:
    """Make a folder if it is not there, and check that files can be written in it.

    Args:
        what: the setting's name, such as data.
        folder: its value.

    Raises:
        CannotStart: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise CannotStart(
            f"{what} folder {str(folder)!r}: {error.strerror}",
            "Choose a folder in which this user may write files, with "
            f"--{what} or OVERTONE_{what.upper()}",
        ) from error


def torch_build() -> dict[str, Any] | None:
    """Return what the installed torch says of its build, without importing it."""
    spec = importlib.util.find_spec("torch")
    for place in (spec and spec.submodule_search_locations) or ():
        if (Path(place) / "version.py").is_file():
            return runpy.run_path(str(Path(place) / "version.py"))
    return None


def _has_nvidia_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _no_base(source: str, why: str) -> CannotStart:
    return CannotStart(f"base {source!r} cannot be loaded: {why}", _WANTED)


def _check_file(source: str, file: Path) -> None:
    try:
        check_gguf(file)
    except NoBase as error:
        raise CannotStart(f"base {source!r} cannot be loaded: {error.why}", error.step) from error


def _like(folder: Path) -> str:
    """Return what is there under a similar name, or how far the path leads."""
    parent = folder.absolute().parent
    if not parent.is_dir():
        there = next(path for path in parent.parents if path.is_dir())
        return f": {there} holds no {parent.relative_to(there).parts[0]}"
    try:
        names = [path.name for path in parent.iterdir() if path.is_dir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(folder.name, names, n=1)
    return f" (did you mean {parent / near[0]}?)" if near else ""


def _check_hub(name: str) -> None:
    """Refuse a hub id that was not downloaded before, where the hub certainly cannot be asked."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    if (cache / "refs").is_dir():
        return
    here = f"there is no folder {name!r} in {Path.cwd()}{_like(Path(name))}"
    if constants.HF_HUB_OFFLINE:
        raise _no_base(
            name,
            f"{here}, the hub's model of this name was not downloaded before, and HF_HUB_OFFLINE "
            f"forbids asking the hub",
        )
    why = _why_no_hub(constants.ENDPOINT)
    if why:
        raise _no_base(
            name,
            f"{here}, the hub's model of this name was not downloaded before, and the hub, "
            f"{constants.ENDPOINT}, does not answer: {why}",
        )


def _why_no_hub(url: str) -> str | None:
    """Return why the hub cannot be reached; None if it answers, or takes its time."""
    found: list[str] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=_HUB_S).close()
        except urllib.error.HTTPError:
            pass  # it answers
        except urllib.error.URLError as error:
            if not isinstance(error.reason, TimeoutError | ssl.SSLError):
                found.append(str(error.reason))
        except OSError:
            pass

    # A name server that is away is waited for much longer than any connection.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HUB_S)
    return found[0] if found else None
