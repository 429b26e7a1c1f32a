"""Adapter directories on disk, as the commands read and write them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.digest import digest_of
from adapters_core.contract.peft_config import MAX_CONFIG_BYTES, PeftConfig
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME


class BadFolder(Exception):
    """A folder or file that was named cannot be used; the message says why."""


@dataclass(frozen=True)
class AdapterFolder:
    """A directory with an adapter's two files."""

    path: Path

    @property
    def weights(self) -> Path:
        """Return where the coefficients lie."""
        return self.path / WEIGHTS_NAME

    @property
    def config_bytes(self) -> bytes:
        """Return adapter_config.json, or as much of it as shows that it is too large."""
        with (self.path / CONFIG_NAME).open("rb") as file:
            return file.read(MAX_CONFIG_BYTES + 1)

    @property
    def config(self) -> PeftConfig:
        """Return the parsed config.

        Raises:
            AdapterError: it is malformed.
        """
        return PeftConfig.parse(self.config_bytes)

    @property
    def digest(self) -> str:
        """Return the adapter's digest, as the server computes it."""
        return digest_of(self.weights, self.config.canonical())

    def read(self, base: BaseSpec) -> Adapter:
        """Return the adapter, checked against a base.

        Raises:
            AdapterError: see adapters_core/errors.py.
        """
        return read_adapter(self.weights, self.config_bytes, base)


def adapter_folder(path: Path) -> AdapterFolder:
    """Return the adapter in a directory.

    Raises:
        BadFolder: there is no directory, or it lacks one of the two files.
    """
    if not path.is_dir():
        raise BadFolder(f"{path} is no folder")
    if not (path / WEIGHTS_NAME).is_file() and (path / "adapter_model.bin").is_file():
        raise BadFolder(
            f"{path} has adapter_model.bin, a pickle, which can run code and is not read; "
            "save it again with safe_serialization=True"
        )
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (path / name).is_file():
            raise BadFolder(f"{path} has no {name}")
    return AdapterFolder(path)


@contextmanager
def new_folder(out: Path, *, replaces: bool) -> Iterator[Path]:
    """Yield a temporary folder; its two files are in `out` when the block ends without an error.

    Args:
        out: made with its parents; other files in it stay.
        replaces: whether `out` may be there already.

    Raises:
        BadFolder: it is there, or cannot be written.
    """
    if out.exists() and not (replaces and out.is_dir()):
        raise BadFolder(f"{out} exists" + ("; --force replaces its adapter" * out.is_dir()))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise BadFolder(f"{out} cannot be written: {error.strerror}") from error
    try:
        yield building
        out.mkdir(exist_ok=True)
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            os.replace(building / name, out / name)
    finally:
        shutil.rmtree(building, ignore_errors=True)
