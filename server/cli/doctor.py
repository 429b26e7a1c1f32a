"""Checks whether this machine is fit to serve: one finding per question, with advice."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

import adapters_core.methods  # noqa: F401  # registers what the canary checks
from adapters_core.contract.method import Shape
from adapters_core.gguf.conversion import local_base
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import run_canary, usual_methods
from adapters_core.layers.invariance import RowProduct, linear_product, products_of_methods
from adapters_core.starting import CannotStart, check_base, check_device, check_folder
from registry import EMBEDDED, EmbeddedServer, RegistryUnavailable, connect, masked
from registry.errors import RegistryUnusable
from registry.objects.bucket import Bucket
from registry.objects.place import store_place
from server.processor.choice import VARIABLE, this_processor
from server.processor.row_check import least_multiple
from server.settings import Settings

#: Widths of common bases; a base's own shapes are taken when one is given.
_WIDTHS = (768, 1024, 2048)
_USUAL = {Shape(width, width) for width in _WIDTHS}
_MIN_FREE_BYTES = 1 << 30
_REGISTRY_ADVICE = (
    "start it; or correct --registry or OVERTONE_REGISTRY, and OVERTONE_REGISTRY_PASSWORD; the "
    "embedded one's log is registry/valkey.log in the data folder"
)
_TRANSFORMS_ADVICE = (
    "install another version of torch, or set OMP_NUM_THREADS=1: with this one numbers are wrong"
)
_ROWS_ADVICE = (
    "unset MKL_CBWR: a server then searches the setting that this processor needs; where there "
    "is none it logs that, and refuses --deterministic"
)


class NotFit(Exception):
    """A check has failed; the message says what was found."""


@dataclass(frozen=True)
class Check:
    """One question.

    Args:
        question: a few words.
        advice: what to do if the answer is bad.
        run: returns what was found; raises anything if that is bad.
    """

    question: str
    advice: str
    run: Callable[[], str]

    def finding(self) -> "Finding":
        """Run the check; any exception makes a bad finding."""
        try:
            return Finding(self.question, True, self.run(), self.advice)
        except CannotStart as error:
            return Finding(self.question, False, error.what, error.step)
        except NotFit as error:
            return Finding(self.question, False, str(error), self.advice)
        except Exception as error:
            return Finding(self.question, False, f"{type(error).__name__}: {error}", self.advice)


@dataclass(frozen=True)
class Finding:
    """The result of a check; `advice` says what to do if it is not good."""

    question: str
    is_good: bool
    detail: str
    advice: str


def examine(settings: Settings) -> list[Finding]:
    """Return all findings for these settings; an empty `base` means that none is given."""
    return [check.finding() for check in _checks(settings)]


def _checks(settings: Settings) -> list[Check]:
    shapes: set[Shape] = set()  # of the base, once it is loaded
    base = Check(
        "base",
        "give another folder, GGUF file or hub id with --base or OVERTONE_BASE",
        lambda: _base(settings, shapes),
    )
    room = "make room on its disk: 1 GiB at least"
    return [
        Check("Python", "install Python 3.11 or newer", _python),
        Check("torch", "install it again", lambda: _torch(settings.device)),
        Check("free memory", "end other programs: 1 GiB at least must be free", _memory),
        Check("data folder", room, lambda: _folder("data", settings.data)),
        Check("store", f"{room}; of a bucket, what is said", lambda: _store(settings)),
        Check("registry", _REGISTRY_ADVICE, lambda: _registry(settings)),
        *([base] if settings.base else []),
        Check("transforms", _TRANSFORMS_ADVICE, lambda: _transforms(shapes)),
        Check("batch invariance", _ROWS_ADVICE, lambda: _rows(shapes)),
    ]


def print_findings(findings: list[Finding], *, as_json: bool) -> None:
    """Write the findings to standard output."""
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
        return
    table = Table("", "what", "found", "what to do", box=SIMPLE_HEAD, pad_edge=False)
    for f in findings:
        mark = Text("ok", "green") if f.is_good else Text("bad", "red")
        table.add_row(mark, f.question, Text(f.detail), Text("" if f.is_good else f.advice))
    for column in table.columns[2:]:
        column.overflow = "fold"
    Console(highlight=False).print(table)


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _torch(device: str) -> str:
    check_device(device)
    found = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return f"{torch.__version__}, {found}, {torch.get_num_threads()} threads"


def _memory() -> str:
    free = psutil.virtual_memory().available
    return _enough(free, f"{free / 2**30:.1f} GiB")


def _folder(what: str, folder: Path) -> str:
    check_folder(what, folder)
    free = shutil.disk_usage(folder).free
    return _enough(free, f"{folder}, {free / 2**30:.1f} GiB free")


def _store(settings: Settings) -> str:
    place = store_place(settings.store, settings.data / "blobs")
    if isinstance(place, Path):
        return _folder("store", place)
    try:
        Bucket(place).check()
    except RegistryUnusable as error:
        raise NotFit(error.message) from error
    return f"{place} answers"


def _enough(free: int, detail: str) -> str:
    if free < _MIN_FREE_BYTES:
        raise NotFit(detail)
    return detail


def _registry(settings: Settings) -> str:
    """Connect; an embedded registry is started, on its data if there are any."""
    if settings.registry != EMBEDDED:
        return _answering(settings)
    with tempfile.TemporaryDirectory() as scratch:
        is_there = (settings.data / "registry").is_dir()
        EmbeddedServer((settings.data if is_there else Path(scratch)) / "registry").close()
    return "the embedded server starts" + " with the data that are there" * is_there


def _answering(settings: Settings) -> str:
    shown = masked(settings.registry)
    try:
        with connect(settings.registry_url, settings.data, store=settings.store) as registry:
            registry.adapters.list(1)
    except RegistryUnavailable as error:
        raise NotFit(f"{shown} does not answer") from error
    return f"{shown} answers"


def _base(settings: Settings, shapes: set[Shape]) -> str:
    """Load it as the server would, and add its linears' shapes."""
    from server.base.loading import load_base

    check_base(settings.base)
    source = local_base(settings.base, settings.data, lambda line: None)  # tells why not
    base = load_base(source, settings.base_name, "cpu", "float32", settings.task)
    shapes.update(base.spec.targets.values())
    return f"{settings.base}: a {base.kind} with {len(base.spec.targets)} linears"


def _rows(shapes: set[Shape]) -> str:
    """Check that a row has the same bits alone and in any batch, in this processor's products."""
    cpu, tried = torch.device("cpu"), sorted(shapes or _USUAL)

    def products() -> Iterator[RowProduct]:
        yield from (linear_product("a linear", torch.randn(s.out, s.in_)) for s in tried)
        yield from products_of_methods(usual_methods(), tried, BasisCache(cpu))

    report = least_multiple(products, cpu)
    setting = f"{VARIABLE}={os.environ[VARIABLE]}" if VARIABLE in os.environ else "no setting"
    where = f"{this_processor().name}, {setting}"
    if not report.holds:
        raise NotFit(f"{report.moved} depends on its neighbours: {where}")
    return f"a row has its own bits over multiples of {report.multiple} rows: {where}"


def _transforms(shapes: set[Shape]) -> str:
    report = run_canary(usual_methods(), shapes or _USUAL, BasisCache(torch.device("cpu")))
    if not report.checked:
        raise NotFit("nothing was checked")
    where = "the base's own shapes" if shapes else f"widths {', '.join(map(str, _WIDTHS))}"
    detail = f"{report.checked} checks right, on {where}"
    if report.rerouted:
        detail += f", {len(report.rerouted)} of them only in float64 (slower, and exact)"
    return detail
