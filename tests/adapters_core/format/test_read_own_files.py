"""Files of our own name the base they were made for, and the positions that their seed gave."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.errors import BaseMismatch, InvalidAdapter, UnusedTensors
from adapters_core.format.write import write_adapter
from adapters_core.methods import FourierFT, LoRA
from adapters_core.positions import seeded
from reading_parts import Q0, V1, Read, refused
from tiny_bases import random_layer, tiny_llama, tiny_qwen3


def written(folder: Path, spec: BaseSpec, method: FourierFT | LoRA) -> Path:
    layers = {target: random_layer(method, spec.targets[target]) for target in (Q0, V1)}
    write_adapter(folder, method, layers, spec)
    return folder


def test_our_own_file_is_verified(llama_spec: BaseSpec, tmp_path: Path, read: Read) -> None:
    assert read(written(tmp_path, llama_spec, FourierFT(n=30))).description.base_verified


def test_our_own_file_has_the_same_bytes_every_time(llama_spec: BaseSpec, tmp_path: Path) -> None:
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        contents = set()
        for i in range(12):  # safetensors orders its metadata at random
            folder = written(tmp_path / f"{file}{i}", llama_spec, FourierFT(n=30))
            contents.add((folder / file).read_bytes())
        assert len(contents) == 1


@pytest.mark.parametrize("method", [FourierFT(n=30), LoRA(r=3)], ids=["fourierft", "lora"])
def test_a_file_of_another_base_is_refused(
    method: FourierFT | LoRA, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    other = spec_of(tiny_llama(seed=1), "other-llama")
    assert other.targets == llama_spec.targets  # nothing but the fingerprint tells them apart
    error = refused(read, written(tmp_path, other, method), BaseMismatch)
    for part in ("other-llama", other.fingerprint, "tiny-llama", llama_spec.fingerprint):
        assert part in error.message


def test_a_base_of_other_layers_shows_what_was_expected(fourierft_folder: Path, read: Read) -> None:
    small = spec_of(tiny_qwen3(num_hidden_layers=1), "small")
    error = refused(read, fourierft_folder, UnusedTensors, spec=small)
    assert "2 tensors match no adaptable layer of base 'small'" in error.message


def change_metadata(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "adapter_model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = dict(opened.metadata())
    own = json.loads(metadata["overtone"])
    changed = change(own)
    metadata["overtone"] = changed if isinstance(changed, str) else json.dumps(own)
    save_file(load_file(file), file, metadata=metadata)


def test_positions_that_the_seed_does_not_give_are_refused(
    llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    folder = written(tmp_path, llama_spec, FourierFT(n=30))
    change_metadata(folder, lambda own: own["places"].update({"96x96": "sha256:" + "0" * 64}))
    error = refused(read, folder, InvalidAdapter)
    assert "the seed gives other positions for 96x96" in error.message


def test_a_torch_that_shuffles_otherwise_is_noticed(
    llama_spec: BaseSpec, tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(tmp_path, llama_spec, FourierFT(n=30))
    true = seeded._first_of_shuffle
    monkeypatch.setattr(seeded, "_first_of_shuffle", lambda *a: true(*a)[::-1].copy())
    monkeypatch.setattr(seeded, "_kept", seeded._drawn)  # as in a new process
    assert "other positions" in refused(read, folder, InvalidAdapter).message


@pytest.mark.parametrize(
    "own",
    [
        "not JSON",
        "[]",
        "null",
        "3",
        '{"base": 3}',
        '{"base": null}',
        '{"places": []}',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
    ],
)
def test_bad_metadata_of_ours_is_refused(
    own: str, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    folder = written(tmp_path, llama_spec, FourierFT(n=30))
    change_metadata(folder, lambda _: own)
    assert refused(read, folder, InvalidAdapter).param == "__metadata__"


@pytest.mark.parametrize("base", [{}, {"fingerprint": 3}, {"name": [], "fingerprint": "\ud800"}])
def test_a_fingerprint_of_nonsense_is_another_base(
    base: Any, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    folder = written(tmp_path, llama_spec, FourierFT(n=30))
    change_metadata(folder, lambda own: own.update({"base": base}))
    refused(read, folder, BaseMismatch).message.encode()
