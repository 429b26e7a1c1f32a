"""What is computed from a base's weights, in files that are checked when they are read.

A file's header has the sha256 of the weights it was made from and of its own tensors: one that is
damaged, or was made from other weights, counts as missing. A file is written beside its place and
moved there whole. Processes that need the same file at once wait for the one that makes it.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters_core.part_files import part_of

_ORIGIN, _CONTENT = "made_from", "sha256"
_ONLY = "tensor"


class DerivedFiles:
    """The files of one base.

    Args:
        folder: theirs; it is made when the first is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str, origin: str) -> dict[str, Tensor] | None:
        """Return the tensors of a file, if it is there, whole, and made from these weights.

        They are mapped: what is not used takes no memory.
        """
        try:
            with safe_open(self._path(name), "pt") as file:
                said = file.metadata() or {}
            if said.get(_ORIGIN) != origin:
                return None
            tensors = load_file(self._path(name))
        except (OSError, SafetensorError):
            return None
        return tensors if digest_of_tensors(sorted(tensors.items())) == said.get(_CONTENT) else None

    def read_or_made(
        self, name: str, origin: str, make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return the tensors of a file, made and written first if it is missing."""
        with self._alone(name):
            found = self.read(name, origin)
            if found is None:
                self._write(name, origin, make())
                found = self.read(name, origin)
        if found is None:
            raise OSError(f"{self._path(name)} cannot be read back as it was written")
        return found

    def unchecked(self, name: str) -> Tensor | None:
        """Return the only tensor of a file without digests, as earlier versions wrote it."""
        try:
            return load_file(self._path(name)).get(_ONLY)
        except (OSError, SafetensorError):
            return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def _write(self, name: str, origin: str, tensors: dict[str, Tensor]) -> None:
        whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
        said = {_ORIGIN: origin, _CONTENT: digest_of_tensors(sorted(whole.items()))}
        path = self._path(name)
        part = part_of(path)
        try:
            save_file(whole, part, metadata=said)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold a lock of this file among all processes; the system frees it when one ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._path(name).with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for part in self._folder.glob(f".{name}.safetensors.*.part"):
                part.unlink(missing_ok=True)  # of a process that was killed
            yield


def digest_of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return `sha256:…` over names, shapes and all numbers, read as little-endian float32."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}\0{list(tensor.shape)}\0".encode())
        numbers = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(numbers.astype("<f4", copy=False).data)
    return "sha256:" + digest.hexdigest()
