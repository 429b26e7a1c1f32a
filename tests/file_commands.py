"""`overtone convert` and `overtone inspect` in this process: what they say and refuse."""

import json
from pathlib import Path
from typing import Any

import torch
import typer
from typer.testing import CliRunner, Result

from adapters_core.base.spec import BaseSpec
from adapters_core.format.read import Adapter
from adapters_core.layers.basis_cache import BasisCache
from made import CPU
from server.tools.adapter_folder import AdapterFolder
from server.tools.commands import convert, inspect

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
QUERIES = [f"model.layers.{i}.self_attn.q_proj" for i in range(2)]


def run(*arguments: object, width: int = 200) -> Result:
    """Run the program's two commands; a traceback is the test's, not the program's."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("convert")(convert)
    app.command("inspect")(inspect)
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words, env={"COLUMNS": str(width)}, catch_exceptions=False)


def said(*arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refusal(*arguments: object) -> str:
    """Return the one line that a refused command ends with."""
    done = run(*arguments)
    assert done.exit_code == 1, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def read(folder: Path, spec: BaseSpec) -> Adapter:
    return AdapterFolder(folder).read(spec)


def deltas(adapter: Adapter, spec: BaseSpec) -> dict[str, torch.Tensor]:
    bases = BasisCache(CPU)
    return {
        path: method.delta(
            adapter.layers[path], spec.targets[path], bases.get(method, spec.targets[path])
        ).double()
        for path, method in adapter.methods.items()
    }
