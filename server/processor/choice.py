"""The setting chosen for this machine and base, kept under the data folder.

oneMKL (Intel's library, in torch's builds for x86) selects its kernels by MKL_CBWR, "conditional
numerical reproducibility" in its developer guide; it reads the variable when it is loaded.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter

from adapters_core.part_files import replacing

VARIABLE = "MKL_CBWR"
#: The slowest setting: kernels without vector instructions of later processors.
LAST_RESORT = "COMPATIBLE"
#: Other variables that select kernels, or the number of threads that they run on.
_INFLUENCES = (
    VARIABLE,
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
)


@dataclass(frozen=True)
class Choice:
    """A setting of the matrix library.

    Args:
        cbwr: of MKL_CBWR; None leaves the library free.
        multiple: of rows that products run over; None if a row's bits depend on its neighbours
            whatever the multiple.
    """

    cbwr: str | None
    multiple: int | None


@dataclass(frozen=True)
class Processor:
    """A processor: its maker (`GenuineIntel`, `AuthenticAMD` …), its name, its instruction sets."""

    vendor: str
    name: str
    flags: frozenset[str]

    @property
    def needs_search(self) -> bool:
        """Return whether to search before anything is loaded.

        On Intel's own processors the library selects its kernel by the number of rows, so that
        without a setting a row's bits depend on it; elsewhere the start measures whether they do.
        """
        return self.vendor == "GenuineIntel"

    def settings(self) -> list[str | None]:
        """Return the values of MKL_CBWR to try; the first leaves the library free.

        STRICT, with the same bits for all sizes, exists from AVX2 on.
        """
        tried: list[str | None] = [None]
        if "avx512f" in self.flags:
            tried.append("AVX512,STRICT")
        if "avx2" in self.flags:
            tried.append("AVX2,STRICT")
        if self.flags:
            tried.append(LAST_RESORT)
        return tried

    def guess(self) -> str | None:
        """Return a setting without a search: it has kept bits wherever it was tried."""
        return self.settings()[1] if self.needs_search and len(self.settings()) > 1 else None


@cache
def this_processor() -> Processor:
    """Return the processor from Linux's description; elsewhere its name alone."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    about = {name.strip(): value.strip() for name, _, value in lines}
    name = about.get("model name") or platform.processor() or platform.machine()
    return Processor(about.get("vendor_id", ""), name, frozenset(about.get("flags", "").split()))


_KEPT = TypeAdapter(dict[str, Choice])


class Choices:
    """The choices of one data folder, in one small file; safe to share among processes."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "processor.json"

    def get(self, key: str) -> Choice | None:
        """Return what was kept under `key`; a file that cannot be read holds nothing."""
        return self._all().get(key)

    def keep(self, key: str, choice: Choice) -> None:
        """Keep a choice, beside those of other bases."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._file) as part:
            part.write_bytes(_KEPT.dump_json({**self._all(), key: choice}, indent=1))

    def _all(self) -> dict[str, Choice]:
        try:
            return _KEPT.validate_json(self._file.read_bytes())
        except (OSError, ValueError):
            return {}


def machine_parts(environment: Mapping[str, str]) -> list[str]:
    """Return what a result of this machine depends on: processor, cores, libraries' settings."""
    processor = this_processor()
    return [
        processor.name,
        " ".join(sorted(processor.flags)),
        str(_num_cores()),
        *(f"{name}={environment.get(name)}" for name in _INFLUENCES),
    ]


def key_of(base: str, dtype: str, environment: Mapping[str, str]) -> str:
    """Return what a choice depends on: the machine, torch, the base's shapes."""
    config = Path(base) / "config.json"
    parts = [
        *machine_parts(environment),
        version("torch"),
        dtype,
        config.read_text() if config.is_file() else base,
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _num_cores() -> int:
    """Return how many cores this process may use; libraries derive their threads from it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
