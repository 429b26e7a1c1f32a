"""A base from a GGUF file answers as transformers does that reads the file itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters_core.gguf import writing
from gguf_files import write_gguf
from live import Live, error_of, serving, settings_of
from server.cli.commands import _with_local_base
from server.settings import Settings
from trainer.base import load
from trainer.process.settings import WorkerSettings

PROMPTS = ("the weather", "Once", "a b c d e f g")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("files") / "tiny.Q8_0.gguf")


@pytest.fixture(scope="module")
def folder(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("made")
    writing.main(file, made)
    return made


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(settings_of(folder, tmp_path_factory.mktemp("data"))) as live:
        yield live


def test_served_tokens_are_those_of_the_file(file: Path, server: Live) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")
        row = model.generate(**ids, max_new_tokens=8, do_sample=False)[0]
        expected = row[ids["input_ids"].shape[1] :].tolist()
        assert server.tokens("tiny", prompt) == expected


def test_chats_use_the_files_template(server: Live) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "the"}]}
    answer = server.http.post("/v1/chat/completions", json=asked | {"max_tokens": 2})
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] > 3


def test_without_a_template_chats_are_refused(tmp_path: Path) -> None:
    plain = write_gguf(tmp_path / "plain.gguf", template=None)
    (tmp_path / "base").mkdir()
    writing.main(plain, tmp_path / "base")
    with serving(settings_of(tmp_path / "base", tmp_path / "data")) as live:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "the"}]}
        answer = live.http.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 400
    assert "chat template" in error_of(answer)["message"]


def test_server_and_worker_agree_on_the_base(file: Path, server: Live, folder: Path) -> None:
    trained = load(folder, "causal_lm", "tiny", device="cpu")
    assert trained.spec.fingerprint == server.service.base.spec.fingerprint
    assert WorkerSettings(base=str(file)).base_name == "tiny.Q8_0"


@pytest.mark.parametrize("name", [None, "mine"])
def test_a_file_gives_the_base_its_name(
    file: Path, folder: Path, tmp_path: Path, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "adapters_core.gguf.conversion._written", lambda file, part, say: writing.main(file, part)
    )
    given = Settings(base=str(file), base_name=name, data=tmp_path)
    ready = _with_local_base(given, lambda line: None)
    assert ready.base_name == (name or "tiny.Q8_0")
    assert (Path(ready.base) / "model.safetensors").read_bytes() == (
        folder / "model.safetensors"
    ).read_bytes()
