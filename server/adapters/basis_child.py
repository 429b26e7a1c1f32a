"""The process that computes what is made from the base's weights, beside the server.

    python -m server.adapters.basis_child

One JSON object on standard input says what is to be made (`request_of`). Then the process writes
JSON lines: `{"weight": path}` asks for a weight, which comes as its float32 numbers; `{"share": x}`
says how much is done; the last line is `{}`, or `{"fault": message}` if the weights do not allow
it. The result is in the file (adapters_core/base/derived_files.py).
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from adapters_core.base.spec import BaseSpec, BaseWeights
from adapters_core.contract.layer import Derived, Shape
from adapters_core.errors import InvalidAdapter

#: The system runs it when nothing else wants the processor.
_NICENESS = 19


def request_of(derived: Derived, weights: BaseWeights, folder: Path, device: str) -> str:
    """Return the line that has a process make `derived`.

    Args:
        derived: what is to be made.
        weights: of the base.
        folder: where it is kept.
        device: where to compute, if there is room.
    """
    request = {
        "name": derived.name,
        "paths": derived.paths,
        "make": f"{derived.make.__module__}:{derived.make.__name__}",
        "argument": derived.argument,
        "fingerprint": weights.fingerprint,
        "shapes": {path: list(shape) for path, shape in weights.shapes.items()},
        "folder": str(folder.resolve()),
        "device": device,
    }
    return json.dumps(request)


class _Asked:
    """The other side's weights, and what it is told."""

    def __init__(self, shapes: dict[str, Shape], device: str, reader: BinaryIO) -> None:
        self._shapes, self._reader = shapes, reader
        self.device = torch.device(device)

    def weight(self, path: str) -> Tensor:
        self.tell({"weight": path})
        numbers = torch.empty(self._shapes[path], dtype=torch.float32)
        rest = numbers.numpy().data.cast("B")
        while rest:
            count = self._reader.readinto(rest)  # type: ignore[attr-defined]
            if not count:
                raise EOFError("the server has ended")
            rest = rest[count:]
        return numbers.to(self.device)

    def report(self, name: str, share: float) -> None:
        self.tell({"share": share})

    def tell(self, what: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Make what the line on standard input says."""
    os.nice(_NICENESS)
    torch.set_num_threads(1)
    request = json.loads(sys.stdin.buffer.readline())
    shapes = {path: Shape(*shape) for path, shape in request["shapes"].items()}
    asked = _Asked(shapes, request["device"], sys.stdin.buffer)
    spec = BaseSpec("", request["fingerprint"], shapes)
    folder = Path(request["folder"])
    weights = BaseWeights(spec, asked.weight, folder, report=asked.report)
    derived = _derived(request)
    try:
        try:
            weights.kept(derived)
        except torch.OutOfMemoryError:
            asked.device = torch.device("cpu")
            weights.kept(derived)
    except InvalidAdapter as error:
        asked.tell({"fault": error.message})
    else:
        asked.tell({})


def _derived(request: dict[str, Any]) -> Derived:
    module, _, function = request["make"].partition(":")
    make = getattr(importlib.import_module(module), function)
    return Derived(request["name"], tuple(request["paths"]), make, request["argument"], 0)


if __name__ == "__main__":
    main()
