"""Dockerfile, .dockerignore and docker-compose.yml, as far as they can be checked unbuilt."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml

from .dockerfile import Stage, command, parse, sources

ROOT = Path(__file__).parents[2]
STAGES = {stage.name: stage for stage in parse((ROOT / "Dockerfile").read_text())}
COPIED = sorted({s for stage in STAGES.values() for c in stage.all("COPY") for s in sources(c)})
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
PASSWORDS = {"REDIS_PASSWORD": "a1", "GRAFANA_PASSWORD": "b2"}


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
def test_image_does_not_run_as_root(target: str) -> None:
    assert inherited(target, "USER")[-1] not in ("root", "0")


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
    for name in ("server", "trainer"):
        arguments = SERVICES[name]["build"]["args"]
        assert arguments["TORCH_BACKEND"] == "${TORCH_BACKEND:-cpu}"
        assert arguments["TORCH_INDEX_URL"] == "${TORCH_INDEX_URL:-}"


@pytest.mark.parametrize("name", SERVICES)
def test_no_password_is_an_argument_that_every_user_of_the_machine_can_read(name: str) -> None:
    words = json.dumps([SERVICES[name].get("command"), SERVICES[name].get("entrypoint")])
    assert "${" not in words


def test_no_secret_is_written_down() -> None:
    secret = re.compile(r"(?im)^[^#\n]*(?:password|requirepass|api_key)\w*[ \t]*[:= ][ \t]*\S")
    for name in ("Dockerfile", "docker-compose.yml", "deploy/redis.conf"):
        # Asked of the environment, by Compose or by the container's shell.
        text = re.sub(r"\$\{\w+:\?[^}]*\}|\"\$\$\w+\"", "", (ROOT / name).read_text())
        assert not secret.search(text), name


@pytest.mark.parametrize("name", SERVICES)
def test_service_restarts_and_tells_its_health(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    target = service.get("build", {}).get("target", "")
    is_worker = target == "trainer"  # it serves nobody, so nothing can be asked
    assert is_worker or "healthcheck" in service or inherited(target, "HEALTHCHECK")


def test_ports_are_open_on_this_machine_alone() -> None:
    ports = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert all(port.startswith("127.0.0.1:") for listed in ports.values() for port in listed)
    assert {name for name, listed in ports.items() if listed} == {"server", "prometheus", "grafana"}


def test_registry_is_reached_by_overtone_alone() -> None:
    members = {name for name, service in SERVICES.items() if "registry" in service["networks"]}
    assert members == {"redis", "server", "trainer"}
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


def test_compose_follows_its_schema() -> None:
    """Against the schema that the package check-jsonschema ships."""
    package = find_spec("check_jsonschema")
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs check-jsonschema")
    [folder] = package.submodule_search_locations
    schema = json.loads((Path(folder) / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(COMPOSE, schema)


def test_compose_is_understood_by_docker() -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("needs docker compose")
    arguments = [docker, "compose", "--profile", "trainer", "config", "--quiet"]
    subprocess.run(arguments, cwd=ROOT, env={**os.environ, **PASSWORDS}, check=True)
