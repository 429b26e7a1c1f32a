"""Every fenced block of the pages is run, or held against what it is about."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import tiny_encoders as te
from live import Live, serving, settings_of
from test_imports import LAYERS

from .conftest import Demo
from .pages import ROOT, Block, blocks, tracked

#: Why blocks cannot run here -> how many.
NOT_RUN = {"needs Docker": 1, "needs a cluster": 1, "needs a Ray cluster": 1, "downloads": 6}


def checked_by(check: str) -> list[Block]:
    return [block for block in blocks() if block.check == check]


def test_every_block_has_a_check_and_those_that_cannot_run_say_why() -> None:
    checks = Counter(block.check for block in blocks())
    reasons = Counter(block.reason for block in blocks() if block.reason)
    assert checks["not run"] == sum(reasons.values())
    assert reasons == NOT_RUN


@pytest.mark.parametrize(
    "block", [block for block in checked_by("demo") if block.page != "README.md"], ids=str
)
def test_commands_work_while_the_demo_runs(block: Block, demo: Demo) -> None:
    assert demo.run(block).strip()


@pytest.mark.parametrize("block", checked_by("python"), ids=str)
def test_python_works_while_the_demo_runs(block: Block, demo: Demo) -> None:
    demo.run(block)


@pytest.mark.slow
def test_the_job_of_the_example_comes_to_the_version_that_it_says(demo: Demo) -> None:
    [example] = [block for block in checked_by("python") if ".fine_tuned_model)" in block.text]
    demo.run(example)
    latest = json.loads(demo.shell("overtone jobs --limit 1 --json", demo.folder))["data"][0]["id"]
    demo.shell(f"overtone job {latest} --follow", demo.folder)
    done = json.loads(demo.shell(f"overtone job {latest} --json", demo.folder))
    assert f"then {done['fine_tuned_model'].partition('@')[0]}@" in example.text


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory, few_threads: None) -> Iterator[Live]:
    """A server of a tiny classifier with the adapter `reviews`."""
    folder = te.save(tmp_path_factory.mktemp("base"), "bert")
    config = te.configs("bert", "SEQ_CLS", None)[0]
    made = te.make(te.reference(folder, "bert"), config, tmp_path_factory.mktemp("made"), 0)
    with serving(settings_of(folder, tmp_path_factory.mktemp("data"))) as live:
        labels = te.metadata(["bad", "fair", "good"])
        assert live.upload("reviews", made.files, metadata=labels).status_code == 201
        yield live


@pytest.mark.parametrize("block", checked_by("classifier"), ids=str)
def test_a_classifier_answers_as_its_page_says(block: Block, classifier: Live) -> None:
    command = block.text.replace("http://127.0.0.1:8000", classifier.url)
    done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    assert {"data", "usage", "overtone"} <= set(answer)
    assert [row["index"] for row in answer["data"]] == [0, 1]
    assert {"index", "label", "score", "scores"} == set(answer["data"][0])
    assert {"label", "score"} == set(answer["data"][0]["scores"][0])


@pytest.mark.parametrize("block", checked_by("not run"), ids=str)
def test_what_docker_is_told_is_what_our_files_ask_for(block: Block) -> None:
    known = (ROOT / "Dockerfile").read_text() + (ROOT / "docker-compose.yml").read_text()
    for argument in re.findall(r"--build-arg (\w+)=", block.text):
        assert f"ARG {argument}" in known
    for variable in re.findall(r"\b([A-Z]+_(?:PASSWORD|KEYS?))\b", block.text):
        assert f"${{{variable}:?" in known or f"environment: {variable}\n" in known


@pytest.mark.parametrize("block", checked_by("compose"), ids=str)
def test_compose_files_fit_ours_and_follow_the_schema(block: Block) -> None:
    shipped = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    override = yaml.safe_load(block.text)
    for name, service in override["services"].items():
        shipped["services"][name].update(service)
    jsonschema.validate(shipped, compose_schema())
    jsonschema.validate(override, compose_schema())


def compose_schema() -> Any:
    package = find_spec("check_jsonschema")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs check-jsonschema")
    [folder] = package.submodule_search_locations
    return json.loads((Path(folder) / "builtin_schemas/vendor/compose-spec.json").read_text())


@pytest.mark.parametrize("block", checked_by("tree"), ids=str)
def test_files_and_folders_of_a_tree_exist(block: Block) -> None:
    known = [f"/{path}" for path in tracked()]
    named = re.findall(r"(?<![\w./])[a-z][\w.-]*(?:/(?:\w+/)?|\.py)(?=\s|$)", block.text)
    assert named
    assert [name for name in named if not any(f"/{name}" in path for path in known)] == []


def test_the_trees_show_every_room() -> None:
    trees = "\n".join(b.text for b in checked_by("tree") if b.page == "docs/architecture.md")
    rooms = [(package, room) for package in LAYERS for room in " ".join(LAYERS[package]).split()]
    for package, room in rooms:
        if room == "__main__":
            continue
        path = room.replace(".", "/")
        is_folder = (ROOT / package / path).is_dir()
        assert f" {path}{'/' if is_folder else '.py'} " in f"{trees} ".replace("\n", " \n"), room
