"""Commands, flags, variables, routes, files and names in the pages are the program's own."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.routing import Match

from live import settings_of
from server.app import create_app
from server.settings import Settings
from server.telemetry.metrics import Metrics

from .pages import CURRENT, ROOT, blocks, code_of, modules, source, spans, title, tracked, words
from .program import arguments, command_of, options, parse, tree

#: Flags of other programs -> the program.
FOREIGN_FLAGS = {
    "--torch-backend": "uv",
    "--dry-run": "uv",
    "--no-deps": "pip",
    "--requirepass": "redis-server",
    "--scale": "docker compose",
    "--logdir": "tensorboard",
    "--model-server-metrics-path": "the Gateway API's endpoint picker",
    "--model-server-metrics-port": "the Gateway API's endpoint picker",
    "--share_entry": "the FourierFT authors' code",
    "--serve": "./run docs",
}
#: Files that users, programs or other projects make.
MADE = re.compile(
    r"yours|OUT|DIR|\.venv|docker-compose\.override\.yml|config\.json|modules\.json|store\.json|"
    r"processor\.json|manifest\.json|bases/|starts/|labels\.|LABEL|train/|test/|torch/version\.py"
)
#: Paths of fields in requests and answers.
FIELDS = r"^(?:overtone|method|usage|training)\."
#: Names of other programs' settings.
FOREIGN_NAMES = {
    "terminationGracePeriodSeconds",
    "OTEL_TRACES_SAMPLER",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "max_loras",
    "max_loras_per_batch",
    "_mixed_batch_forward",
}
COMMANDS = [command for block in blocks() for command in block.commands]
GENERATED = {
    "bases.md",
    "encoders.md",
    "api.md",
    "commands.md",
    "settings.md",
    "client.md",
}  # names of other modules, of events


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files and folders that documented commands read."""
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "held.jsonl", "chats.jsonl", "tea.jsonl"):
        (tmp_path / name).touch()
    for name in ("SOURCE", "B", "DIR", "my-adapter", "another"):
        (tmp_path / name).mkdir()
    (tmp_path / "trainer").symlink_to(ROOT / "trainer")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The application, which is not started."""
    folder = tmp_path_factory.mktemp("app")
    return create_app(settings_of(folder, folder), Metrics(), lambda _: pytest.fail("started"))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_blocks_commands_have_the_options_and_arguments_that_they_are_given(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command)
    if words[0] == "./run" and words[1] in ("setup", "test", "docs", "reference"):
        assert f"./run {words[1]} " in (ROOT / "run").read_text()
    else:
        parse(command, monkeypatch)


@pytest.mark.parametrize("page", CURRENT, ids=title)
def test_commands_in_the_text_exist_and_have_their_flags(page: Path) -> None:
    commands = tree()
    for span in spans(page):
        if re.match(r"(overtone|\./run) (?!test|setup|reference|docs)[a-z]", span):
            words = arguments(span)
            name = command_of(words, commands)
            assert name, span
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            # --url, --api-key and --json may stand behind the command, too.
            known = options(commands[name]) | {"--help", "--url", "--api-key", "--json"}
            assert given <= known or name.startswith("bench "), span


@pytest.mark.parametrize("page", CURRENT, ids=title)
def test_flags_in_the_text_exist(page: Path) -> None:
    known = {flag for command in tree().values() for flag in options(command)}
    known |= {*FOREIGN_FLAGS, "--help", *re.findall(r'"(--[a-z][\w-]*)"', source("bench/"))}
    named = re.findall(r"(?<![\w-])--[a-z][\w-]*", "\n".join(spans(page)))
    assert set(named) - known == set()


@pytest.mark.parametrize("page", CURRENT, ids=title)
def test_variables_exist(page: Path) -> None:
    known = {f"OVERTONE_{name.upper()}" for name in Settings.model_fields}
    known |= set(re.findall(r"OVERTONE_[A-Z_]+", source()))
    assert set(re.findall(r"OVERTONE_[A-Z_]+(?![A-Z_…])", page.read_text())) - known == set()


@pytest.mark.parametrize("page", CURRENT, ids=title)
def test_routes_exist(page: Path, app: FastAPI) -> None:
    pattern = (
        r"(?:(GET|POST|PUT|DELETE|PATCH) +)?((?<!\w)/(?:v1/.|health/|version|metrics)[\w/{}@.:-]*)"
    )
    for method, path in re.findall(pattern, code_of(page)):
        scope = {"type": "http", "path": path.rstrip("/."), "method": method or "GET"}
        matches = {route.matches(scope)[0] for route in app.routes}
        assert Match.FULL in matches or (not method and Match.PARTIAL in matches), path


@pytest.mark.parametrize("page", CURRENT, ids=title)
def test_files_in_the_text_exist(page: Path) -> None:
    known = "\n".join(f"/{path}" for path in tracked())
    pattern = r"(?:[\w.-]+/)*[\w.-]+(?:/|\.(?:py|md|yml|json|sh|lua|conf))"
    named = {s.removeprefix("./") for s in spans(page) if re.fullmatch(pattern, s)}
    missing = {
        name
        for name in named
        if f"/{name}" not in known or (not name.endswith("/") and f"/{name}\n" not in f"{known}\n")
    }
    assert {name for name in missing if not MADE.search(name)} == set()


@pytest.mark.parametrize("page", [p for p in CURRENT if p.name not in GENERATED], ids=title)
def test_names_of_code_in_the_text_exist(page: Path) -> None:
    named = {
        span
        for span in spans(page)
        if re.fullmatch(r"[A-Za-z_][\w.]*(\(\))?(?<!\.py)(?<!\.conf)", span)
        and re.search(r"[._]|[a-z][A-Z]", span)
        and not re.search(rf"^OVERTONE_|{FIELDS}|{MADE.pattern}", span)
    }
    assert {name for name in named if not _exists(name)} == set()


def _exists(name: str) -> bool:
    """Return whether a name's parts are words of the code, each in the module before it."""
    parts = re.findall(r"\w+", name)
    return words() | FOREIGN_NAMES >= set(parts) and all(
        any(re.search(rf"\b{part}\b", text) for text in modules(module)) or not modules(module)
        for module, part in pairwise(parts)
    )
