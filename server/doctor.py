"""Is this machine fit to serve? One finding per question, with what to do about a bad one."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from rich.console import Console
from rich.table import Table

from adapters_core.bases import Bases
from adapters_core.canary import run_canary, usual_methods
from adapters_core.method import Shape
from registry import connect

#: Widths of common bases; a base's own shapes are taken when one is given.
_SHAPES = tuple(Shape(width, width) for width in (768, 1024, 2048, 3072, 4096))
_MIN_FREE_BYTES = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One question's answer; `advice` says what to do if it is not good."""

    question: str
    is_good: bool
    detail: str
    advice: str = ""


def examine(base: str | None, registry: str | None, data: str | None) -> list[Finding]:
    """Return all findings; a check that breaks is a finding, not an exception."""
    folder = Path(data) if data else Path.home() / ".overtone"
    checks: list[Callable[[], Finding]] = [
        _python,
        _torch,
        _memory,
        lambda: _store(folder),
        lambda: _registry(registry or "embedded"),
        lambda: _transforms(base),
    ]
    return [_guarded(check) for check in checks]


def print_findings(findings: list[Finding], *, as_json: bool) -> None:
    """Write the findings to standard output."""
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
        return
    table = Table("", "what", "found", "what to do")
    for f in findings:
        mark = "[green]ok[/]" if f.is_good else "[red]bad[/]"
        table.add_row(mark, f.question, f.detail, "" if f.is_good else f.advice)
    Console().print(table)


def _guarded(check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        name = getattr(check, "__name__", "check").strip("_<>")
        return Finding(name, False, f"{type(error).__name__}: {error}", "see the message")


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _torch() -> Finding:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    detail = f"{torch.__version__}, {device}, {torch.get_num_threads()} threads"
    return Finding("torch", True, detail)


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    good = free >= _MIN_FREE_BYTES
    return Finding("free memory", good, f"{free / 2**30:.1f} GiB", "free at least 1 GiB")


def _store(folder: Path) -> Finding:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    good = os.access(folder, os.W_OK) and free >= _MIN_FREE_BYTES
    detail = f"{folder}, {free / 2**30:.1f} GiB free"
    return Finding("data folder", good, detail, "choose a writable folder with --data")


def _registry(url: str) -> Finding:
    with tempfile.TemporaryDirectory() as scratch, connect(url, Path(scratch)) as registry:
        registry.adapters.list(1)
    kind = "embedded server starts" if url == "embedded" else "answers"
    return Finding("registry", True, kind)


def _transforms(base: str | None) -> Finding:
    shapes = set(_SHAPES) if base is None else _shapes_of(base)
    report = run_canary(usual_methods(), shapes, Bases(torch.device("cpu")))
    detail = f"{report.checked} checks right"
    if report.rerouted:
        detail += f", {len(report.rerouted)} of them only in float64 (slower, and exact)"
    return Finding("transforms", True, detail)


def _shapes_of(base: str) -> set[Shape]:
    from server.model import load_base

    return set(load_base(base, None, "cpu", "float32").spec.targets.values())
