"""Trains the demo's adapters on SmolLM2-135M-Instruct, by the same code as any job.

    python -m trainer.demo_build.smollm2_adapters --base FOLDER --out DIR [--only NAME]

FOLDER is what `overtone demo --base smollm2` has made of its file: gguf/DIGEST in its data folder.
Each adapter's folder is PEFT's, with the base's fingerprint in the header, and a metrics.json with
held-out figures of adapter and base, how it was trained, and sample answers of both.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters_core.base.spec import weight_of, weights_of
from adapters_core.format.read import read_adapter
from adapters_core.format.write import CONFIG_NAME, WEIGHTS_NAME
from adapters_core.interchange.project import dense_delta
from adapters_core.layers.basis_cache import BasisCache
from registry.jobs.spec import Hyperparameters, JobSpec
from trainer.base import LoadedBase, load
from trainer.demo_build.smollm2_tasks import TASKS, Record, Texts
from trainer.interfaces import JobFiles, Reporter, Trained
from trainer.training.run import run_job

BASE_NAME = "smollm2"
_MOST_TOKENS = 48  # of an answer


@dataclass(frozen=True)
class Recipe:
    """How one adapter is trained.

    Args:
        method: a registered one.
        config: fields of adapter_config.json that differ from the preset's.
        hyper: fields of Hyperparameters that differ from these programs' own.
    """

    method: str
    config: Mapping[str, Any] = field(default_factory=dict)
    hyper: Mapping[str, Any] = field(default_factory=dict)


RECIPES: Mapping[str, Recipe] = {
    "dates": Recipe(
        "frod",
        {"sparse_rate": 0.0005, "layers_to_transform": list(range(15, 30))},
        {"n_epochs": 1},
    ),
    "docstrings": Recipe("waveletft", {"n_frequency": 400}, {"n_epochs": 1, "max_steps": 20}),
    "pirate": Recipe("fourierft", {"n_frequency": 300}, {"n_epochs": 8}),
    "sql": Recipe("loca", {"n_frequency": 200}, {"n_epochs": 2}),
    "tickets": Recipe("clora", {"r": 2, "num_spaces": 4}, {"n_epochs": 1}),
}


class Lines(Reporter):
    """Prints a line for what a run says, and for every tenth step."""

    def event(self, level: str, message: str, data: dict[str, Any] | None = None) -> None:
        _say(f"  {level}: {message}")

    def metrics(self, step: int, values: dict[str, float]) -> None:
        if step % 10 == 0 or "eval_loss" in values:
            _say(f"  step {step}: {values}")


def make_adapter(base: LoadedBase, name: str, out: Path) -> dict[str, Any]:
    """Train one adapter into `out`/`name` and return its figures."""
    recipe, texts = RECIPES[name], TASKS[name]()
    _say(f"{name}: {recipe.method} {dict(recipe.config)}, {len(texts.train)} examples")
    with tempfile.TemporaryDirectory() as work:
        started = time.monotonic()
        trained = _trained(base, recipe, texts, Path(work))
        seconds = time.monotonic() - started
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in (CONFIG_NAME, WEIGHTS_NAME):
            shutil.copyfile(trained.folder / file, folder / file)
    figures = _figures(trained, texts) | {"seconds": round(seconds)}
    figures["bytes"] = (folder / WEIGHTS_NAME).stat().st_size
    figures |= _answers(base, folder, texts)
    (folder / "metrics.json").write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n")
    return figures


def _trained(base: LoadedBase, recipe: Recipe, texts: Texts, work: Path) -> Trained:
    given = {"batch_size": 8, "max_length": 192, "checkpoint_every_s": 1e9} | dict(recipe.hyper)
    spec = JobSpec(
        id="ftjob-" + "0" * 24,
        name="demo",
        base_name=base.spec.name,
        base_fingerprint=base.spec.fingerprint,
        task="causal_lm",
        training_file="file-demo",
        method=recipe.method,
        method_config=dict(recipe.config),
        hyperparameters=Hyperparameters(**given),
    )
    files = JobFiles(
        _written(work / "train.jsonl", texts.train), _written(work / "held.jsonl", texts.held_out)
    )
    return run_job(spec, base, files, work / "job", Lines())


def _written(path: Path, rows: Sequence[Record]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def _figures(trained: Trained, texts: Texts) -> dict[str, Any]:
    return {
        "loss": round(trained.metrics["eval_loss"], 4),
        "base_loss": round(trained.base_metrics["eval_loss"], 4),
        "held_out_examples": len(texts.held_out),
        "train_examples": len(texts.train),
        "method": trained.method,
        "steps": trained.steps,
        "hyperparameters": trained.details["hyperparameters"],
    }


def _answers(base: LoadedBase, folder: Path, texts: Texts) -> dict[str, Any]:
    """Return samples of base and adapter, and the share of held-out answers that are right."""
    found: dict[str, Any] = {"samples": [{"prompt": prompt} for prompt in texts.prompts]}
    for key, merged in (("base", False), ("adapter", True)):
        with _as_adapted(base, folder if merged else None):
            for sample in found["samples"]:
                sample[key] = _answer(base, sample["prompt"], is_chat="messages" in texts.train[0])
            if texts.is_right is not None:
                right = [_is_right(base, row, texts.is_right) for row in texts.held_out]
                found["right" if merged else "base_right"] = round(sum(right) / len(right), 3)
    return found


def _is_right(base: LoadedBase, row: Record, judge: Callable[[str, str], bool]) -> bool:
    question, answer = (turn["content"] for turn in row["messages"])
    said = _answer(base, question, is_chat=True)
    is_right = judge(said, answer)
    _say(f"  {'right' if is_right else 'wrong'}: {question} -> {said!r}")
    return is_right


@torch.no_grad()
def _answer(base: LoadedBase, prompt: str, *, is_chat: bool) -> str:
    """Return the likeliest answer, token by token."""
    tokenizer: Any = base.reader
    model: Any = base.model
    text = prompt
    if is_chat:
        turns = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=not is_chat)
    row = model.generate(**ids, max_new_tokens=_MOST_TOKENS, do_sample=False)[0]
    said = tokenizer.decode(row[ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return str(said).strip()


@contextmanager
def _as_adapted(base: LoadedBase, folder: Path | None) -> Iterator[None]:
    """Have the base's weights with an adapter's updates, and its own again afterwards."""
    golden: dict[str, Tensor] = {}
    if folder is not None:
        adapter = read_adapter(
            folder / WEIGHTS_NAME, (folder / CONFIG_NAME).read_bytes(), base.spec
        )
        cache = BasisCache(torch.device("cpu"), weights_of(base.model, base.spec))
        for path, method in adapter.methods.items():
            weight = weight_of(base.model.get_submodule(path)).detach()
            golden[path] = weight.clone()
            shape = base.spec.layers[path]
            weight += dense_delta(method, adapter.layers[path], shape, path, cache)
    try:
        yield
    finally:
        for path, kept in golden.items():
            weight_of(base.model.get_submodule(path)).detach().copy_(kept)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the command line, train, write."""
    parser = argparse.ArgumentParser(description="Train the demo's adapters on SmolLM2.")
    parser.add_argument("--base", type=Path, required=True, help="the converted base's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the adapters' folders")
    parser.add_argument("--only", choices=sorted(RECIPES), action="append", help="may be repeated")
    parser.add_argument("--threads", type=int, default=None)
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    base = load(options.base, "causal_lm", BASE_NAME, device="cpu")
    for name in options.only or RECIPES:
        figures = make_adapter(base, name, options.out)
        _say(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
