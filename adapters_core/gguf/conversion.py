"""A GGUF file as a base: converted once into the data folder, and found there ever after.

The folder is named by the file's digest, so that it is the same whatever the file is called and
wherever it lies; the digest is computed once and kept with the file's size and time of change. The
conversion runs in a process of its own (writing.py): this one has not imported torch yet, and gets
no memory back that it once used. It appears whole or not at all.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapters_core.gguf_faults import NoBase, check_gguf
from adapters_core.part_files import part_of, replacing
from adapters_core.starting import CannotStart, check_base, check_folder

#: Of the format of what is kept; a conversion that is done differently gets other folders.
_FORMAT = 1
#: Bytes of a number in the folder, at most, and of all that is no weight.
_NUMBER, _REST = 4, 64 << 20
_LARGE = 1 << 30
Say = Callable[[str], object]


def base_name_of(source: str) -> str:
    """Return what a base is called where no name is given: its folder's or its file's name."""
    path = Path(source)
    return path.stem if path.suffix.lower() == ".gguf" else path.name


def local_base(source: str, data: Path, say: Say) -> str:
    """Return the folder or hub id to load; a GGUF file is converted if it was not before.

    Args:
        source: folder, hub id or GGUF file; the first two are not checked here.
        data: the data folder; conversions lie in `gguf` there.
        say: is told in a line what is done and how long it took.

    Raises:
        CannotStart: the file is no base, or cannot be converted here.
    """
    file = Path(source).expanduser()
    if not file.is_file():
        return source
    check_base(source)
    check_folder("data", data)
    kept = data / "gguf"
    try:
        kept.mkdir(exist_ok=True)
        digest = _digest(file, kept / "digests", say)
        folder = kept / f"{digest[:32]}-{_FORMAT}"
        if not folder.is_dir():
            with _alone(folder.with_suffix(".lock"), say):
                if not folder.is_dir():
                    _convert(file, folder, say)
    except NoBase as error:
        raise CannotStart(f"base {source!r} cannot be loaded: {error.why}", error.step) from error
    except OSError as error:
        raise CannotStart(
            f"base {source!r} cannot be converted into {str(kept)!r}: {error.strerror or error}",
            "Make room there, or choose another folder with --data or OVERTONE_DATA",
        ) from error
    return str(folder)


def _digest(file: Path, kept: Path, say: Say) -> str:
    """Return the SHA-256 of a file, computed again only when its size or time has changed."""
    found = file.stat()
    path = str(file.resolve())
    stamp: dict[str, Any] = {"path": path, "size": found.st_size, "mtime_ns": found.st_mtime_ns}
    note = kept / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"
    try:
        known = json.loads(note.read_bytes())
        if {name: known[name] for name in stamp} == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        pass  # not computed yet
    if found.st_size > _LARGE:
        say(f"computing the digest of {file.name}, {found.st_size / 1e9:.1f} GB, once")
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    kept.mkdir(exist_ok=True)
    with replacing(note) as part:
        part.write_text(json.dumps(stamp | {"sha256": digest}))
    return digest


@contextmanager
def _alone(lock: Path, say: Say) -> Iterator[None]:
    """Convert a file in one process at a time; the system frees the lock when one ends."""
    with lock.open("wb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process converts this file; waiting for it")
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def _convert(file: Path, folder: Path, say: Say) -> None:
    """Convert a file into `folder`.

    Raises:
        NoBase: it cannot be converted.
        OSError: the disk is full or may not be written.
    """
    numbers = check_gguf(file).numbers
    for part in folder.parent.glob(f".{folder.name}.*.part"):
        shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    needed, free = _NUMBER * numbers + _REST, shutil.disk_usage(folder.parent).free
    if free < needed:
        raise NoBase(
            f"its conversion needs {_gb(needed)} in {str(folder.parent)!r}, {_gb(free)} are free",
            "Make room there, or choose another folder with --data or OVERTONE_DATA",
        )
    say(f"converting {file.name}, {numbers / 1e6:,.0f} million numbers, once, into {folder}")
    # Made by the process that writes, which removes it when this one ends at any moment.
    part = part_of(folder)
    try:
        _written(file, part, say)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _written(file: Path, part: Path, say: Say) -> None:
    """Have the process write, and pass on what it says; it ends when this one does."""
    command = [sys.executable, "-m", "adapters_core.gguf.writing", str(file.resolve()), str(part)]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # that it ends is how the process learns of our end
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=_environment(),
            start_new_session=True,  # Ctrl-C ends this one, and so that one
        ) as process,
    ):
        assert process.stdout is not None
        last: dict[str, Any] = {}
        for line in process.stdout:
            last = json.loads(line)
            if "say" in last:
                say(last["say"])
        if process.wait() == 0:
            return
        if "why" in last:
            raise NoBase(last["why"], last["step"])
        errors.seek(0)
        said = errors.read().decode(errors="replace").splitlines()
        raise NoBase(*_words_for(process.returncode, said[-1] if said else ""))


def _words_for(code: int, said: str) -> tuple[str, str]:
    """Return what an end without a word means, and what to do."""
    if code == -9:
        return (
            "the system has ended its conversion, which happens where memory is short",
            "End other programs, or take a machine with more memory",
        )
    return f"its conversion has ended with {code}: {said[:400]}", "Try it again"


def _environment() -> dict[str, str]:
    """Return the environment with this process's path of modules, which may be no installed one."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
