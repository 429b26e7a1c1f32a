"""Find the cheapest setting that keeps bits: each one is tried in a process of its own."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from registry.common.die_with_parent import tied
from server.processor.choice import LAST_RESORT, VARIABLE, Choice, Choices, key_of, this_processor
from server.settings import Settings

_LOG = logging.getLogger("overtone")
_TIMEOUT_S = 600.0
#: A setting replaces a less restrictive one only if a step's time is less than this part of it.
_GAIN = 0.95


def prepare(settings: Settings) -> None:
    """Set MKL_CBWR in the environment as this machine needs it; call before torch is imported.

    An earlier start's choice is used again; without a base, the usual one for the processor. A
    value that is already set stays, and nothing is set where a GPU computes.
    """
    if VARIABLE in os.environ or _has_gpu(settings.device):
        return
    choices, key = _kept(settings)
    choice = choices.get(key) if settings.base else Choice(this_processor().guess(), None)
    if choice is None and this_processor().needs_search:
        choice = search(settings.base, settings.dtype)
        choices.keep(key, choice)
    if choice is not None and choice.cbwr is not None:
        os.environ[VARIABLE] = choice.cbwr


def can_search(settings: Settings) -> bool:
    """Return whether settings are left that no start has tried yet."""
    if VARIABLE in os.environ or _has_gpu(settings.device):
        return False
    choices, key = _kept(settings)
    return choices.get(key) is None and len(this_processor().settings()) > 1


def search_and_restart(settings: Settings) -> None:
    """Keep a search's choice and execute this program again: torch is loaded already."""
    choices, key = _kept(settings)
    choices.keep(key, search(settings.base, settings.dtype))
    _LOG.info("starting again with the setting that was found")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def search(base: str, dtype: str) -> Choice:
    """Return the cheapest setting under which rows keep their bits; takes seconds, and logs it."""
    _LOG.info(
        "looking for the setting of this processor (%s) under which an answer does not depend on "
        "its neighbours; once for this machine and base",
        this_processor().name,
    )
    best, best_s = Choice(None, None), float("inf")
    for cbwr in this_processor().settings():
        if cbwr == LAST_RESORT and best.multiple is not None:
            continue
        multiple, seconds = _try(base, dtype, cbwr)
        if multiple is not None and seconds < best_s * _GAIN:
            best, best_s = Choice(cbwr, multiple), seconds
    return best


def _try(base: str, dtype: str, cbwr: str | None) -> tuple[int | None, float]:
    """Return the least multiple of rows that holds, None if none does, and a step's cost."""
    name = f"{VARIABLE}={cbwr}" if cbwr else f"{VARIABLE} unset"
    setting = {VARIABLE: cbwr} if cbwr else {}
    try:
        done = subprocess.run(
            _command(base, dtype),
            env={**os.environ, **setting},
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        result = json.loads(done.stdout.splitlines()[-1])
        multiple, seconds = result["multiple"], float(result["seconds"])
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        _LOG.warning("%s could not be tried: %s", name, error)
        return None, 0.0
    if multiple is None:
        _LOG.info("%s: an answer depends on its neighbours", name)
    else:
        _LOG.info("%s: holds over %d rows, %.2f ms a step", name, multiple, 1000 * seconds)
    return multiple, seconds


def _command(base: str, dtype: str) -> list[str]:
    """Return the command of a trial: a process that ends with this one in any case."""
    return tied([sys.executable, "-m", "server.processor.probe", base, dtype])


def _kept(settings: Settings) -> tuple[Choices, str]:
    return Choices(settings.data), key_of(settings.base, settings.dtype, os.environ)


def _has_gpu(device: str) -> bool:
    """Return whether a GPU computes, without importing torch."""
    is_there = Path("/proc/driver/nvidia/version").exists()
    return device.startswith("cuda") or (device == "auto" and is_there)
