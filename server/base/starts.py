"""What the findings of a start depend on: machine, versions, and the base with its weights."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from adapters_core.base.spec import BaseSpec
from server.base.findings import Findings
from server.base.phases import Phases

#: Libraries that compute, or that say what is computed.
_LIBRARIES = ("torch", "transformers", "numba", "llvmlite", "numpy")
#: Packages of this product with code that finds things out.
_OURS = ("adapters_core", "server")


@dataclass(frozen=True)
class Starts:
    """Where starts keep their findings, and what these depend on beside the base.

    Args:
        folder: of all findings.
        machine: its processor, its cores, and the settings of libraries.
        phases: of this start.
    """

    folder: Path
    machine: tuple[str, ...]
    phases: Phases

    def findings_of(self, model: nn.Module, spec: BaseSpec, max_length: int) -> Findings:
        """Return the findings of starts with this base.

        Args:
            model: of the base, on its device.
            spec: of the model; its fingerprint is read.
            max_length: the most tokens of a text.
        """
        first = next(model.parameters())
        is_gpu = first.device.type == "cuda"
        key = [
            *self.machine,
            str(torch.get_num_threads()),
            torch.backends.cpu.get_cpu_capability(),
            torch.cuda.get_device_name(first.device) if is_gpu else first.device.type,
            *versions(),
            spec.fingerprint,
            str(first.dtype),
            str(model.config),
            str(max_length),
        ]
        return Findings(self.folder, key, self.phases)


@cache
def versions() -> tuple[str, ...]:
    """Return what computes: libraries with their versions, and a digest of our own source."""
    return (*(f"{name} {_version(name)}" for name in _LIBRARIES), _source_digest())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _source_digest() -> str:
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in _OURS:
        for file in sorted((root / package).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
