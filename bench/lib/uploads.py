"""Random adapters for a running server: made from its base's shapes, uploaded, deleted again."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from overtone_client import Adapter, Client, InvalidArgument, NotFound, OvertoneError

if TYPE_CHECKING:
    from adapters_core.base.spec import BaseSpec
    from adapters_core.contract.method import Method


@dataclass(frozen=True)
class RandomAdapters:
    """Which adapters to make, of query and value.

    Args:
        count: how many.
        method: a registered method's name.
        config: hyper-parameters, others than the method's defaults.
        base: folder or hub id of the server's base; only its config is read.
        fingerprint: of the server's base; the files carry it.
    """

    count: int
    method: str
    config: dict[str, Any]
    base: str
    fingerprint: str


@contextmanager
def made_adapters(
    client: Client, wanted: RandomAdapters, say: Callable[[str], None]
) -> Iterator[list[Adapter]]:
    """Upload random adapters; they are deleted with the block.

    Args:
        client: of the server.
        wanted: the adapters.
        say: called with a line of progress.

    Raises:
        InvalidArgument: the base or the method cannot be used.
        OvertoneError: an upload failed; what was uploaded before it is deleted.
    """
    spec = _spec_of(wanted.base, wanted.fingerprint)
    method = _method(wanted.method, wanted.config)
    prefix = f"bench-{token_hex(4)}-"
    uploaded: list[Adapter] = []
    try:
        with tempfile.TemporaryDirectory(prefix="overtone-bench-") as scratch:
            for folder in _written(Path(scratch), method, spec, wanted.count):
                name = f"{prefix}{len(uploaded):05d}"
                uploaded.append(client.upload(folder, name))
                say(f"uploaded {len(uploaded)} of {wanted.count} adapters")
        yield uploaded
    finally:
        _delete(client, prefix, say)


def _delete(client: Client, prefix: str, say: Callable[[str], None]) -> None:
    """Delete all of a prefix: an upload that was interrupted may have arrived."""
    try:
        names = [adapter.name for adapter in client.list_adapters(prefix=prefix)]
        for number, name in enumerate(names, 1):
            try:
                client.delete(name)
            except NotFound:
                continue
            say(f"deleted {number} of {len(names)} adapters")
    except (OvertoneError, KeyboardInterrupt) as error:
        say(f"adapters with the prefix {prefix} are left on the server: {error}")
        raise


def _method(name: str, config: dict[str, Any]) -> "Method":
    import adapters_core.methods  # noqa: F401  (registers the methods)
    from adapters_core.contract.method_registry import registered
    from adapters_core.errors import AdapterError

    kind = registered().get(name)
    if kind is None:
        raise InvalidArgument(f"no method {name!r}; there are {', '.join(sorted(registered()))}")
    if kind.needs_base:
        raise InvalidArgument(f"{name} needs the base's weights; make its adapters beforehand")
    try:
        return kind(**config)
    except (AdapterError, TypeError) as error:
        raise InvalidArgument(f"method {name} with {config}: {error}") from error


def _spec_of(source: str, fingerprint: str) -> "BaseSpec":
    """Return the base's spec from its config alone; its weights are not read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from adapters_core.base.spec import BaseSpec, adaptable, shape_of

    try:
        config = AutoConfig.from_pretrained(source)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidArgument(
            f"--base {source!r} cannot be read: {error}. "
            "Give the folder or hub id that the server serves"
        ) from error
    targets = {path: shape_of(module) for path, module in adaptable(model)}
    return BaseSpec(Path(source).name, fingerprint, targets)


def _written(folder: Path, method: "Method", spec: "BaseSpec", count: int) -> Iterator[Path]:
    """Write adapters one after the other, each over the one before."""
    import torch

    from adapters_core.format.write import write_adapter
    from adapters_core.layers.basis_cache import BasisCache
    from bench.lib.bases import random_adapter, targets_of

    targets = targets_of(spec, "qv") or list(spec.targets)
    shapes, bases = (
        {target: spec.targets[target] for target in targets},
        BasisCache(torch.device("cpu")),
    )
    for number in range(count):
        write_adapter(folder, *random_adapter(method, shapes, bases, number), spec)
        yield folder
