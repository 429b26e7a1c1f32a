"""What a start's findings depend on: each part that changes has findings of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from adapters_core.base.spec import spec_of
from server.base import starts
from server.base.loading import Base, make_base
from server.base.phases import Phases
from server.base.starts import Starts, versions
from server.processor.choice import Processor, machine_parts


def kept(folder: Path, machine: Callable[[], list[str]] = lambda: machine_parts({})) -> Starts:
    return Starts(folder, tuple(machine()), Phases())


def file_of(given: Starts, model: Any, max_length: int = 64) -> Path:
    return given.findings_of(model, spec_of(model, "tiny"), max_length)._file


MKL = {"MKL_CBWR": "AVX2,STRICT"}
MODEL = tiny.model("llama")
FLAGS = Processor("AuthenticAMD", "EPYC", frozenset({"avx2", "avx512f"}))


def test_another_machine_base_or_length_has_findings_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.processor.choice.this_processor", lambda: FLAGS)
    own = kept(tmp_path)
    files = [file_of(own, MODEL), file_of(own, MODEL, 65)]
    files.append(file_of(own, tiny.model("llama", seed=1)))
    files.append(file_of(own, tiny.model("gpt2")))
    files.append(file_of(own, tiny.model("llama").bfloat16()))
    files.append(file_of(own, tiny.model("llama", rope_theta=5.0)))
    files.append(file_of(kept(tmp_path, lambda: machine_parts(MKL)), MODEL))
    other = replace(FLAGS, flags=frozenset({"avx2"}))
    monkeypatch.setattr("server.processor.choice.this_processor", lambda: other)
    files.append(file_of(kept(tmp_path), MODEL))
    assert len(set(files)) == len(files)
    monkeypatch.setattr("server.processor.choice.this_processor", lambda: FLAGS)
    assert file_of(kept(tmp_path), tiny.model("llama")) == files[0]


@pytest.mark.parametrize("what", ["_version", "_source_digest", "get_num_threads"])
def test_other_versions_source_or_threads_have_findings_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    before = file_of(kept(tmp_path), MODEL)
    versions.cache_clear()
    home = torch if what == "get_num_threads" else starts
    monkeypatch.setattr(home, what, lambda *_: "another")
    try:
        assert file_of(kept(tmp_path), MODEL) != before
    finally:
        versions.cache_clear()


def test_versions_name_libraries_and_our_own_source() -> None:
    assert any(part.startswith("torch 2") for part in versions())
    assert len(versions()[-1]) == 64


def test_the_second_load_does_not_run_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "adapters_core")

    def made() -> Base:
        caplog.clear()
        return make_base(tiny.model("llama4"), tiny.tokenizer(), "tiny", kept(tmp_path))

    first, said = made(), caplog.messages
    assert any("no adapter may change" in line for line in said)
    monkeypatch.setattr("adapters_core.base.causal_probe._run", lambda *_: pytest.fail("it runs"))
    assert made().spec == first.spec
    assert list(made().spec.targets) == list(first.spec.targets)
    assert [line for line in caplog.messages if "no adapter" in line] == [
        line for line in said if "no adapter" in line
    ]
