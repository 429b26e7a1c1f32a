"""deploy/kubernetes: valid for Kubernetes, hardened, and every name that is used exists."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from server.settings import Settings
from server.telemetry.metrics import Metrics

from .custom_resources import SPECS

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
FOLDERS = sorted(path.parent for path in KUBERNETES.glob("*/kustomization.yaml"))
#: Values of another project's chart.
VALUES = KUBERNETES / "autoscaling" / "prometheus-adapter.yaml"
#: Made by hand or by other projects, as the comments beside their names say.
MADE = {("Secret", "overtone"), ("Gateway", "inference"), ("Service", "overtone-epp")}
#: The oldest that has a sleep before the signal, and the newest that the package knows.
VERSIONS = ("1.30", "1.37")

Resource = dict[str, Any]


def kustomization(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return read


def resources() -> list[Resource]:
    """Return all that the folders list, file by file."""
    names = [folder / name for folder in FOLDERS for name in kustomization(folder)["resources"]]
    files = [path for path in names if path.is_file()]
    return [each for path in files for each in yaml.safe_load_all(path.read_text())]


RESOURCES = resources()
BUILT_IN = [each for each in RESOURCES if (each["apiVersion"], each["kind"]) not in SPECS]
CUSTOM = [each for each in RESOURCES if each not in BUILT_IN]
PODS = {
    each["metadata"]["name"]: each["spec"]
    for each in RESOURCES
    if "template" in each.get("spec", {})
}
TEMPLATES = {name: spec["template"] for name, spec in PODS.items()}


def title(resource: Resource) -> str:
    return f"{resource['kind']}-{resource['metadata']['name']}"


def named(kind: str, name: str) -> Resource:
    [found] = [each for each in RESOURCES if title(each) == f"{kind}-{name}"]
    return found


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_lists_each_of_its_files(folder: Path) -> None:
    listed = {(folder / name).resolve() for name in kustomization(folder)["resources"]}
    assert all(path.exists() for path in listed)
    there = set(folder.glob("*.yaml")) - {folder / "kustomization.yaml", VALUES}
    assert there <= listed


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("resource", BUILT_IN, ids=title)
def test_resources_follow_kubernetes_schemas(resource: Resource, version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    wrong = json.loads(json.dumps(named("Deployment", "server")))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("resource", CUSTOM, ids=title)
def test_resources_of_operators_have_known_fields_alone(resource: Resource) -> None:
    assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
    jsonschema.validate(resource["spec"], SPECS[resource["apiVersion"], resource["kind"]])


@pytest.mark.parametrize("name", TEMPLATES)
def test_pods_have_no_rights(name: str) -> None:
    spec = TEMPLATES[name]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    [container] = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", ["server", "worker"])
def test_overtones_pods_fit_their_image_and_its_settings(name: str) -> None:
    spec = TEMPLATES[name]["spec"]
    assert spec["enableServiceLinks"] is False  # else OVERTONE_… variables that are no settings
    dockerfile = (ROOT / "Dockerfile").read_text()
    context = spec["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in dockerfile
    [container] = spec["containers"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/data", "/var/cache/overtone", "/tmp", "/store"}
    variables = [v["name"] for v in container["env"] if v["name"].startswith("OVERTONE_")]
    settings = {f"OVERTONE_{field.upper()}" for field in Settings.model_fields}
    assert set(variables) <= settings


def test_a_server_that_goes_is_left_alone_first_and_has_time_for_its_answers() -> None:
    spec = TEMPLATES["server"]["spec"]
    [container] = spec["containers"]
    grace = {v["name"]: v.get("value") for v in container["env"]}["OVERTONE_GRACE_S"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container["readinessProbe"]
    assert wait >= readiness["periodSeconds"]
    assert wait + float(grace) + 5 < spec["terminationGracePeriodSeconds"]
    assert PODS["server"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_probes_ask_what_the_server_answers() -> None:
    [container] = TEMPLATES["server"]["spec"]["containers"]
    paths = {kind: container[kind]["httpGet"]["path"] for kind in container if "Probe" in kind}
    assert paths == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }


def test_redis_is_set_as_everywhere() -> None:
    lines = (ROOT / "deploy" / "redis.conf").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert named("ConfigMap", "redis")["data"]["redis.conf"].splitlines() == wanted


def references(node: Any, kind: str = "") -> Iterator[tuple[str, str]]:
    """Yield kind and name of all that a resource refers to."""
    kinds = {
        "secretKeyRef": "Secret",
        "configMap": "ConfigMap",
        "persistentVolumeClaim": "PersistentVolumeClaim",
        "credentials": "Secret",
        "parentRefs": "Gateway",
        "poolRef": "InferencePool",
        "endpointPickerRef": "Service",
        "scaleTargetRef": "Deployment",
        "backendRefs": "InferencePool",
    }
    if isinstance(node, list):
        for each in node:
            yield from references(each, kind)
    elif isinstance(node, dict):
        name = node.get("claimName" if kind == "PersistentVolumeClaim" else "name")
        if kind and name:
            yield kind, name
        for field, value in node.items():
            yield from references(value, kinds.get(field, ""))


def test_all_that_is_referred_to_exists() -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in RESOURCES}
    used = {found for each in RESOURCES for found in references(each.get("spec", {}))}
    assert {"Secret", "ConfigMap", "InferencePool", "Gateway", "Deployment"} <= {k for k, _ in used}
    assert used <= there | MADE
    assert used >= MADE


def selectors(node: Any) -> Iterator[dict[str, str]]:
    if isinstance(node, list):
        for each in node:
            yield from selectors(each)
    elif isinstance(node, dict):
        if "app" in node.get("matchLabels", {}):
            yield node["matchLabels"]
        for each in node.get("matchExpressions", ()):
            yield from ({each["key"]: value} for value in each["values"])
        for field, value in node.items():
            if field == "selector" and "app" in value:
                yield value
            yield from selectors(value)


def test_selectors_find_pods() -> None:
    labels = [template["metadata"]["labels"] for template in TEMPLATES.values()]
    found = list(selectors(RESOURCES))
    assert len(found) > 10
    assert all(each in labels for each in found)


def test_ports_have_their_names() -> None:
    ports = {
        port["name"]: port["containerPort"]
        for template in TEMPLATES.values()
        for port in template["spec"]["containers"][0].get("ports", [])
    }
    text = json.dumps(RESOURCES)
    used = set(re.findall(r'"(?:targetP|p)ort": ("\w+"|\d+)', text))
    assert {json.loads(each) for each in used} <= {*ports, *ports.values(), 53}
    [pool] = named("InferencePool", "overtone")["spec"]["targetPorts"]
    assert pool["number"] == ports["http"]


def scaling_rule() -> dict[str, Any]:
    [rule] = yaml.safe_load(VALUES.read_text())["rules"]["custom"]
    read: dict[str, Any] = rule
    return read


def test_the_metric_that_scales_is_made_of_one_that_servers_have() -> None:
    [metric] = named("HorizontalPodAutoscaler", "server")["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == scaling_rule()["name"]["as"]
    metrics = Metrics()
    metrics.on_first_token(0.2, queue_s=0.1)
    shown = metrics.render()[0].decode()
    names = set(re.findall(r"overtone_\w+", scaling_rule()["metricsQuery"]))
    assert names == {"overtone_queue_seconds_sum", "overtone_queue_seconds_count"}
    assert all(f"\n{name} " in shown for name in names)


@pytest.mark.prometheus
def test_the_rule_gives_the_mean_time_in_the_queue_of_each_pod(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("needs Debian's prometheus")
    query = scaling_rule()["metricsQuery"]
    query = query.replace("<<.GroupBy>>", "pod").replace(
        "<<.LabelMatchers>>", 'namespace="overtone"'
    )
    series = {
        'sum{namespace="overtone", pod="busy"}': "0+30x20",
        'count{namespace="overtone", pod="busy"}': "0+60x20",
        'sum{namespace="overtone", pod="idle"}': "7x20",
        'count{namespace="overtone", pod="idle"}': "9x20",
    }
    given = [{"series": f"overtone_queue_seconds_{k}", "values": v} for k, v in series.items()]
    expected = [{"labels": '{pod="busy"}', "value": 0.5}, {"labels": '{pod="idle"}', "value": 0}]
    asked = {"expr": query, "eval_time": "10m", "exp_samples": expected}
    test = {"interval": "1m", "input_series": given, "promql_expr_test": [asked]}
    (tmp_path / "t.yml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": [test]}))
    command = [promtool, "test", "rules", "t.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize_builds_a_folder(folder: Path) -> None:
    kubectl = shutil.which("kubectl")
    version = ["version", "--client", "-o", "json"]
    said = kubectl and subprocess.run([kubectl, *version], capture_output=True, text=True).stdout
    if not said or "kustomizeVersion" not in said:
        pytest.skip("needs a kubectl with kustomize")
    done = subprocess.run([str(kubectl), "kustomize", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # deprecations
    built = list(yaml.safe_load_all(done.stdout))
    assert built
    for each in built:
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == "overtone"
    gpus = done.stdout.count("nvidia.com/gpu: 1")
    assert gpus == (2 if folder.name == "cuda" else 0)
