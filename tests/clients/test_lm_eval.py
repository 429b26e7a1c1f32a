"""lm-evaluation-harness, unmodified: its figures over the API are those of its `hf` backend.

Tasks are files made here: choices, last words, whole texts, and texts to write. The `hf` backend
loads the base and the adapter with transformers and PEFT.
"""

import json
import os
import random
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tiny
from live import BASE, Live
from peft_made import make

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
#: The hf backend's torch, transformers and PEFT are the product's own; appended to the path, so
#: that the libraries of .venv-clients come first.
PROGRAM = """
import sys
sys.path.append(sys.argv.pop(1))
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""
SITE = next((ROOT / ".venv" / "lib").glob("python3*")) / "site-packages"
WORDS = ["cat", "dog", "sun", "moon", "tree", "river", "stone", "cloud", "apple", "fish"]
#: FourierFT, LoRA and WaveFT (peft_made.py); None is the base itself.
ADAPTERS = (None, 0, 1, 6)
#: Each log-probability of two ways to compute the same may differ so much.
TIE = 1e-3
#: Task -> tokens of its longest text; of all others 30.
_TOKENS = {"own_whole": 2500}
#: The API's tasks of whole texts cut them to two tokens less than the hf backend does.
API_LENGTH, HF_LENGTH = tiny.MAX_LENGTH, tiny.MAX_LENGTH - 2
_LIMIT_S = 240

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Figures:
    """What the harness found: task -> metric -> value, and task -> the answers to each document."""

    metrics: dict[str, dict[str, float]]
    answers: dict[str, list[Any]]


@dataclass(frozen=True)
class Harness:
    """Runs the harness on the tasks of a folder."""

    tasks: Path
    out: Path

    def run(self, backend: str, tasks: Iterable[str], chat: bool = False, **model: Any) -> Figures:
        """Return the figures of a backend with these arguments on these tasks."""
        out = self.out / str(len(list(self.out.iterdir())))
        flags = ["--apply_chat_template"] if chat else []
        given = ",".join(f"{name}={value}" for name, value in model.items())
        arguments = [
            *("run", "--model", backend, "--model_args", given, "--tasks", ",".join(tasks)),
            *("--include_path", str(self.tasks), "--output_path", str(out), "--log_samples"),
            *("--batch_size", "1", "--device", "cpu", *flags),
        ]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [PYTHON, "-c", PROGRAM, SITE, *arguments],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            env={**os.environ, **offline, "HF_HOME": str(self.out / "cache")},
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return _read(out)


def _read(out: Path) -> Figures:
    (results,) = out.rglob("results_*.json")
    metrics = json.loads(results.read_text())["results"]
    answers = {}
    for task in metrics:
        (samples,) = out.rglob(f"samples_{task}_*.jsonl")
        documents = sorted(
            (json.loads(line) for line in samples.read_text().splitlines()),
            key=lambda document: document["doc_id"],
        )
        answers[task] = [document["filtered_resps"] for document in documents]
    numbers = {
        task: {name: value for name, value in found.items() if isinstance(value, float)}
        for task, found in metrics.items()
    }
    return Figures(numbers, answers)


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    folder = tmp_path_factory.mktemp("harness")
    tasks, out = folder / "tasks", folder / "out"
    tasks.mkdir()
    out.mkdir()
    rng = random.Random(1)
    _task(tasks, "choice", _CHOICE, (_choice(rng) for _ in range(25)))
    _task(tasks, "last", _LAST, (_last(rng) for _ in range(25)))
    lengths = (5, 30, 60, 400)  # words; the last is longer than the base's context
    _task(tasks, "whole", _WHOLE, ({"text": _words(rng, length)} for length in lengths))
    _task(tasks, "write", _WRITE, ({"text": _words(rng, 2), "last": "cat"} for _ in range(12)))
    return Harness(tasks, out)


def _words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def _choice(rng: random.Random) -> dict[str, Any]:
    choices = [f" {word}" for word in rng.sample(WORDS, 4)]
    return {"text": f"A {_words(rng, 1)} and a", "choices": choices, "answer": rng.randrange(4)}


def _last(rng: random.Random) -> dict[str, Any]:
    return {"text": _words(rng, 6), "last": _words(rng, 1)}


_CHOICE = """\
output_type: multiple_choice
doc_to_text: "{{text}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list:
  - metric: acc
  - metric: acc_norm
"""
_LAST = """\
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: "{{last}}"
metric_list:
  - metric: perplexity
  - metric: acc
"""
_WHOLE = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
"""
_WRITE = """\
output_type: generate_until
doc_to_text: "{{text}}"
doc_to_target: "{{last}}"
generation_kwargs:
  until: ["\\n", "zz", "qq", "##", "}}"]
  do_sample: false
  temperature: 0.0
  max_gen_toks: 12
metric_list:
  - metric: exact_match
  - metric: bleu
"""


def _task(folder: Path, name: str, rest: str, rows: Iterable[dict[str, Any]]) -> None:
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = f"task: own_{name}\ndataset_path: json\ntest_split: test\n"
    files = f"dataset_kwargs:\n  data_files:\n    test: {data}\n"
    (folder / f"{name}.yaml").write_text(head + files + rest)


@dataclass(frozen=True)
class Case:
    """A model as the server names it, and as the hf backend loads it."""

    name: str
    hf: dict[str, Any]


@pytest.fixture(scope="module")
def live(serve_all: Callable[..., Live]) -> Live:
    return serve_all("llama")


@pytest.fixture(scope="module", params=ADAPTERS, ids=str)
def case(
    request: pytest.FixtureRequest,
    live: Live,
    base_folder: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Case:
    base = {"pretrained": base_folder("llama"), "dtype": "float32", "max_length": HF_LENGTH}
    if request.param is None:
        return Case(BASE, base)
    folder = tmp_path_factory.mktemp("adapter")
    made = make("llama", request.param, folder)
    assert live.upload(made.label, made.files).status_code == 201
    return Case(made.label, base | {"peft": folder})


def completions(live: Live, case: Case, **changes: Any) -> dict[str, Any]:
    return {
        "model": case.name,
        "base_url": f"{live.url}/v1/completions",
        "max_length": API_LENGTH,
        "num_concurrent": 4,
        "tokenizer_backend": "huggingface",
        "tokenizer": case.hf["pretrained"],
        **changes,
    }


def assert_same(got: Figures, true: Figures) -> None:
    assert got.answers.keys() == true.answers.keys()
    for task, answers in true.answers.items():
        for mine, theirs in zip(got.answers[task], answers, strict=True):
            _assert_same_answers(mine, theirs, TIE * _TOKENS.get(task, 30))
        for metric, value in true.metrics[task].items():
            assert got.metrics[task][metric] == pytest.approx(value, rel=2 * TIE), (task, metric)


def _assert_same_answers(got: Any, true: Any, tie: float) -> None:
    """Hold texts to equality, sums of log-probabilities to `tie`."""
    for mine, theirs in zip(got, true, strict=True):
        if isinstance(theirs, str) and not _is_number(theirs):
            assert mine == theirs
        else:
            numbers = [float(x[0] if isinstance(x, list) else x) for x in (mine, theirs)]
            assert numbers[0] == pytest.approx(numbers[1], abs=tie)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_local_completions_finds_what_the_hf_backend_finds(
    harness: Harness, live: Live, case: Case
) -> None:
    tasks = ("own_choice", "own_last", "own_whole", "own_write")
    got = harness.run("local-completions", tasks, **completions(live, case))
    assert_same(got, harness.run("hf", tasks, **case.hf))


def test_local_chat_completions_writes_what_the_hf_backend_writes(
    harness: Harness, live: Live, case: Case
) -> None:
    given = {"model": case.name, "base_url": f"{live.url}/v1/chat/completions"}
    got = harness.run("local-chat-completions", ["own_write"], chat=True, **given)
    assert_same(got, harness.run("hf", ["own_write"], chat=True, **case.hf))


def test_the_harness_takes_the_servers_own_tokenizer(
    harness: Harness, live: Live, case: Case
) -> None:
    """Without a tokenizer of its own it finds /tokenizer_info and /tokenize."""
    if case.name != BASE:
        pytest.skip("all adapters have the base's tokens")
    given = completions(live, case, tokenizer_backend="auto")
    del given["tokenizer"]
    tasks = ("own_choice", "own_last")
    assert_same(
        harness.run("local-completions", tasks, **given), harness.run("hf", tasks, **case.hf)
    )
