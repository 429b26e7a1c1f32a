"""What is trained is what is served: the very characters, and an end after them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import tokenizer_kinds as kinds
from live import CONFIG, FILE, Live, serving, settings_of
from registry.jobs.spec import JobSpec
from small_jobs import job, lines
from trainer.base import load
from trainer.interfaces import JobFiles, Reporter
from trainer.training.run import run_job

pytestmark = pytest.mark.slow


def base(folder: Path, kind: str, shape: str) -> Path:
    """Write a random base with a tokenizer of this kind, and a template of this shape."""
    tokenizer = kinds.tokenizer(kind, kinds.TEMPLATES[shape])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.1,
    )
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.weight, std=0.5)  # so that it can be sure of a token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained(folder: Path, base_folder: Path, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """Return the files of an adapter that knows these rows by heart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    own = load(base_folder, "causal_lm")
    data = lines(folder / "rows", rows)
    spec: JobSpec = job(
        own,
        method="lora",
        method_config={"r": 16, "lora_alpha": 32.0, "target_modules": "all-linear"},
        n_epochs=150,
        batch_size=8,
        checkpoint_every_steps=10_000,
    )
    done = run_job(spec, own, JobFiles(data, data), folder / "job", Reporter())
    torch.set_num_threads(threads)
    assert done.metrics["eval_loss"] < 0.1
    return {name: (folder / "job" / name).read_bytes() for name in (CONFIG, FILE)}


def answered(server: Live, path: str, **body: Any) -> Any:
    body = {"model": "learned", "temperature": 0, "max_tokens": 12, **body}
    answer = server.http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]


@pytest.mark.parametrize(
    "kind", ["unigram, always", "byte fallback, old", "byte-level, bos", "wordpiece"]
)
def test_a_completion_is_served_as_it_was_learned(kind: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base", kind, "turn end is eos")
    rows = [{"prompt": f"key{i}=", "completion": f"v{i}"} for i in range(8)]
    files = trained(tmp_path, folder, rows)
    with serving(settings_of(folder, tmp_path / "data", base_name="tiny")) as server:
        assert server.upload("learned", files).status_code == 201
        for row in rows:
            choice = answered(server, "/v1/completions", prompt=row["prompt"])
            assert (choice["text"], choice["finish_reason"]) == (row["completion"], "stop")


@pytest.mark.parametrize("shape", list(kinds.TEMPLATES))
def test_every_answer_of_a_chat_is_served_as_it_was_learned(shape: str, tmp_path: Path) -> None:
    folder = base(tmp_path / "base", "byte fallback, old", shape)
    chats = [
        [
            {"role": "user", "content": f"{word}?"},
            {"role": "assistant", "content": f"{word}0"},
            {"role": "user", "content": "two?"},
            {"role": "assistant", "content": f"v{number} {word}"},
        ]
        for number, word in enumerate(kinds.WORDS[:6])
    ]
    files = trained(tmp_path, folder, [{"messages": chat} for chat in chats])
    with serving(settings_of(folder, tmp_path / "data", base_name="tiny")) as server:
        assert server.upload("learned", files).status_code == 201
        for chat in chats:
            for turn in (1, 3):
                choice = answered(server, "/v1/chat/completions", messages=chat[:turn])
                said = choice["message"]["content"]
                assert (said, choice["finish_reason"]) == (chat[turn]["content"], "stop")
