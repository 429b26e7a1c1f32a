"""What a job's config says is done, for every method and on layers of every shape."""

import json
from pathlib import Path
from typing import Any

import pytest

from adapters_core.contract.method_registry import registered
from adapters_core.format.read import read_adapter
from small_jobs import Killed, Watcher, files_of, job, killing_at
from trainer.base import LoadedBase, make
from trainer.interfaces import JobFiles
from trainer.training.run import run_job


def trained(
    base: LoadedBase, files: JobFiles, folder: Path, method: str, config: dict[str, Any]
) -> tuple[bytes, bytes]:
    run_job(job(base, method=method, method_config=config), base, files, folder, Watcher())
    return files_of(folder)


def test_dropout_is_applied_recorded_and_the_same_after_a_resume(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    config = {"r": 2, "lora_dropout": 0.5}
    first = trained(base, files, tmp_path / "first", "lora", config)
    assert trained(base, files, tmp_path / "again", "lora", config) == first
    assert json.loads(first[1])["lora_dropout"] == 0.5
    assert trained(base, files, tmp_path / "without", "lora", {"r": 2})[0] != first[0]
    folder = tmp_path / "died"
    spec = job(base, method="lora", method_config=config)
    with pytest.raises(Killed):
        run_job(spec, base, files, folder, Watcher(disturb=killing_at(12)))
    run_job(spec, base, files, folder, Watcher())
    assert files_of(folder) == first


def test_a_gaussian_start_is_another_adapter_and_is_recorded(
    base: LoadedBase, files: JobFiles, tmp_path: Path
) -> None:
    usual = trained(base, files, tmp_path / "usual", "lora", {"r": 2})
    gaussian = {"r": 2, "init_lora_weights": "gaussian"}
    other = trained(base, files, tmp_path / "other", "lora", gaussian)
    assert json.loads(other[1])["init_lora_weights"] == "gaussian"
    assert other[0] != usual[0]


@pytest.mark.parametrize(
    ("method", "config", "wanted"),
    [
        ("lora", {"r": 2, "rank_pattern": {"v_proj": 3}}, ("r", 2, 3)),
        ("dora", {"r": 2, "alpha_pattern": {"v_proj": 3.0}}, ("alpha", 16.0, 3.0)),
        ("fourierft", {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 30}}, ("n", 20, 30)),
        ("loca", {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 30}}, ("n", 20, 30)),
        ("waveletft", {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 30}}, ("n", 20, 30)),
        ("c3a", {"block_size": 16, "block_size_pattern": {"v_proj": 8}}, ("block_size", 16, 8)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_layers_that_a_pattern_names_are_trained_as_it_says(
    base: LoadedBase,
    files: JobFiles,
    tmp_path: Path,
    method: str,
    config: dict[str, Any],
    wanted: tuple[str, Any, Any],
) -> None:
    trained(base, files, tmp_path, method, config)
    raw = (tmp_path / "adapter_config.json").read_bytes()
    adapter = read_adapter(tmp_path / "adapter_model.safetensors", raw, base.spec)
    name, usual, own = wanted
    found = {target: getattr(made, name) for target, made in adapter.methods.items()}
    assert found == {t: own if t.endswith("v_proj") else usual for t in found}
    assert len(found) == 4


def test_the_rate_follows_from_the_layer_that_a_pattern_crowds_most(base: LoadedBase) -> None:
    from trainer.training.presets import setting_of

    pattern = {"n_frequency": 20, "n_frequency_pattern": {"v_proj": 900}, "scaling": 40.0}
    crowded = setting_of("fourierft", pattern, job(base).hyperparameters, base.spec)
    plain = setting_of(
        "fourierft", pattern | {"n_frequency": 900}, job(base).hyperparameters, base.spec
    )
    assert crowded.rates == plain.rates


@pytest.fixture(scope="module")
def odd_base() -> LoadedBase:
    """A base of odd, unequal widths: heads of 10 for 5 queries and one key, 2 x 43 between."""
    import tiny

    sizes = {
        "hidden_size": 50,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "intermediate_size": 43,
    }
    return make(tiny.model("llama", **sizes), tiny.tokenizer(), "odd", "causal_lm")


@pytest.mark.parametrize("layers", [None, "all-linear"])
@pytest.mark.parametrize("method", sorted(registered()))
def test_every_preset_goes_from_job_to_file_on_layers_of_odd_and_unequal_shapes(
    odd_base: LoadedBase, files: JobFiles, tmp_path: Path, method: str, layers: str | None
) -> None:
    config = {} if layers is None else {"target_modules": layers}
    spec = job(odd_base, method=method, method_config=config, max_steps=2)
    done = run_job(spec, odd_base, files, tmp_path, Watcher())
    raw = (tmp_path / "adapter_config.json").read_bytes()
    adapter = read_adapter(tmp_path / "adapter_model.safetensors", raw, odd_base.spec)
    assert adapter.description.digest == done.details["digest"]
    assert len(adapter.methods) == (4 if layers is None else 14)
