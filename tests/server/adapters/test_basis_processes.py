"""A basis that takes long is computed in a process beside the server, which serves meanwhile."""

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import torch

import fake_bases
import tiny
from adapters_core.base import spec as base_spec
from adapters_core.base.spec import BaseSpec, BaseWeights, spec_of, weights_of
from adapters_core.contract.layer import Derived, Shape
from adapters_core.errors import BasisPending, InvalidAdapter
from adapters_core.format.write import write_adapter
from adapters_core.frod.canonical import canonical
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FRoD
from live import BASE, CONFIG, FILE, Files, serving, settings_of
from made import CPU, random_adapter
from server.adapters.basis_processes import BasisProcesses
from waiting import until

QUERY = "self_attn_q_proj"
PROMPT = [79, 110, 99, 101, 32, 7, 200]


@pytest.fixture(autouse=True)
def _nothing_is_light(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a child finds fake_bases."""
    monkeypatch.setattr(base_spec, "LIGHT", 0)
    paths = [str(Path(fake_bases.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))


def weights_beside(folder: Path, processes: BasisProcesses) -> BaseWeights:
    model = tiny.model("llama")
    return weights_of(model, spec_of(model, BASE), folder, processes)


def refusal(ask: Callable[[], object]) -> Exception | None:
    try:
        ask()
    except (BasisPending, InvalidAdapter) as error:
        return error
    return None


def test_it_has_the_bits_of_one_that_is_computed_here(tmp_path: Path) -> None:
    processes = BasisProcesses(tmp_path, CPU)
    beside = weights_beside(tmp_path, processes)
    with pytest.raises(BasisPending, match="0% are done") as caught:
        canonical(beside, QUERY)
    assert caught.value.retry_after_s > 0
    until(lambda: refusal(lambda: canonical(beside, QUERY)) is None)
    model = tiny.model("llama")
    here, made = canonical(weights_of(model, spec_of(model, BASE)), QUERY), canonical(beside, QUERY)
    assert made.digest == here.digest
    for path, own in here.own.items():
        assert torch.equal(made.own[path].u, own.u)


@pytest.mark.slow
def test_it_runs_when_nothing_else_wants_the_processor(tmp_path: Path) -> None:
    weights = weights_beside(tmp_path, BasisProcesses(tmp_path, CPU))
    derived = Derived("niceness", (), fake_bases.niceness, "", 1)
    until(lambda: refusal(lambda: weights.kept(derived)) is None)
    assert weights.kept(derived)["said"].tolist() == [19, 1]


def test_it_says_how_far_it_is_and_ends_with_the_server(tmp_path: Path) -> None:
    processes = BasisProcesses(tmp_path, CPU)
    weights = weights_beside(tmp_path, processes)
    derived = Derived("waits", (), fake_bases.waits, str(tmp_path / "pid"), 1)
    until(lambda: "25% are done" in str(refusal(lambda: weights.kept(derived))))
    pid = int((tmp_path / "pid").read_text())
    processes.close()
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert "0% are done" in str(refusal(lambda: weights.kept(derived)))  # and nothing is begun


@pytest.mark.slow
def test_one_that_is_killed_is_begun_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    processes = BasisProcesses(tmp_path, CPU)
    weights = weights_beside(tmp_path, processes)
    derived, pid = (
        Derived("waits", (), fake_bases.waits, str(tmp_path / "pid"), 1),
        tmp_path / "pid",
    )
    with caplog.at_level(logging.INFO, "overtone.bases"):
        until(lambda: "25%" in str(refusal(lambda: weights.kept(derived))))
        first = pid.read_text()
        os.kill(int(first), signal.SIGKILL)
        until(lambda: refusal(lambda: weights.kept(derived)) and pid.read_text() != first)
    processes.close()
    assert "waits: its process ended with -9" in caplog.text


@pytest.mark.slow
def test_weights_without_a_basis_are_told_of_each_time(tmp_path: Path) -> None:
    spec = BaseSpec("toy", "sha256:toy", {"model.layers.0.self_attn.q_proj": Shape(4, 4)})
    weight, processes = torch.full((4, 4), torch.nan), BasisProcesses(tmp_path, CPU)
    weights = BaseWeights(spec, lambda path: weight, tmp_path, processes)
    until(lambda: isinstance(refusal(lambda: canonical(weights, QUERY)), InvalidAdapter))
    with pytest.raises(InvalidAdapter, match="joint basis"):
        canonical(weights, QUERY)


def written(folder: Path) -> Files:
    """Return an adapter of query and value in the small form."""
    model = tiny.model("llama")
    spec = spec_of(model, BASE)
    shapes = {t: shape for t, shape in spec.targets.items() if t.endswith(("q_proj", "v_proj"))}
    methods, layers = random_adapter(
        FRoD(sparse_rate=0.02), shapes, BasisCache(CPU, weights_of(model, spec)), 3
    )
    write_adapter(folder, methods, layers, spec)
    return {name: (folder / name).read_bytes() for name in (FILE, CONFIG)}


def test_an_upload_and_a_request_are_told_when_to_come_back(
    base_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others are answered meanwhile; in the end the answers are those without a process."""
    settings, files = settings_of(base_folder("llama"), tmp_path / "data"), written(tmp_path)
    with serving(settings) as live:
        check_pending(live.upload("mine", files))
        assert live.tokens("tiny", PROMPT)
        until(lambda: live.upload("mine", files).status_code == 201)
        tokens = live.tokens("mine", PROMPT, ignore_eos=True)
    for path in settings.data.rglob("frod-*.safetensors"):
        path.unlink()
    with serving(settings) as live:
        check_pending(live.complete("mine", PROMPT))
        assert live.tokens("tiny", PROMPT)
        until(lambda: live.complete("mine", PROMPT).status_code == 200)
        assert live.tokens("mine", PROMPT, ignore_eos=True) == tokens
    monkeypatch.setattr(base_spec, "LIGHT", 1 << 60)
    with serving(settings_of(base_folder("llama"), tmp_path / "other")) as live:
        assert live.upload("mine", files).status_code == 201
        assert live.tokens("mine", PROMPT, ignore_eos=True) == tokens


def check_pending(answer: httpx2.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["code"] == "not_ready"
    assert "are done" in answer.json()["error"]["message"]
