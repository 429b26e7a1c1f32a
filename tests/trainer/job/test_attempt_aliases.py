"""Which aliases a job moves: what it is compared with, and what is told of it."""

from dataclasses import replace
from typing import Any

import pytest

from job_attempts import attempt, claimed, file_job, texts
from registry.connect import Registry
from registry.errors import AdapterNotFound
from registry.jobs.spec import PublishGate


@pytest.mark.parametrize(
    ("gate", "mine", "moved", "says"),
    [
        (None, {"eval_loss": 9.0}, True, ""),
        (PublishGate("eval_loss", "base"), {"eval_loss": 1.0}, True, ""),
        (
            PublishGate("eval_loss", "base"),
            {"eval_loss": 2.0},
            False,
            "eval_loss is 2, base's is 2",
        ),
        (PublishGate("accuracy", "base"), {"accuracy": 0.2}, False, "accuracy is 0.2"),
        (PublishGate("f1", "base"), {}, False, "has no metric 'f1'"),
        (PublishGate("accuracy", "alias:prod"), {"accuracy": 0.9}, True, ""),
        (PublishGate("accuracy", "alias:prod"), {"accuracy": 0.6}, False, "alias:prod's is 0.7"),
        (PublishGate("accuracy", "alias:none"), {"accuracy": 0.9}, False, "has no alias 'none'"),
    ],
)
def test_a_worse_adapter_is_not_put_under_the_alias(
    registry: Registry, gate: PublishGate | None, mine: dict[str, float], moved: bool, says: str
) -> None:
    first = file_job(
        registry, alias="prod", seed=1, metadata={"fake": {"metrics": {"accuracy": 0.7}}}
    )
    attempt(registry, claimed(registry, first))
    spec = file_job(registry, alias="prod", publish_if=gate, metadata={"fake": {"metrics": mine}})

    end = attempt(registry, claimed(registry, spec))

    assert end.state == "succeeded"
    is_better = mine.get("eval_loss", 0.0) < 2.0
    aliases = {"latest": 2 if is_better else 1, "prod": 2 if moved else 1}
    assert registry.adapters.get("poet").aliases == aliases
    assert says in texts(registry, spec.id)
    assert ("stays where it is" in texts(registry, spec.id)) == (not moved)


def test_the_first_version_opens_the_alias_that_it_is_to_beat(registry: Registry) -> None:
    gate = PublishGate("accuracy", "alias:prod")
    spec = file_job(registry, alias="prod", publish_if=gate)
    attempt(registry, claimed(registry, spec))
    assert registry.adapters.get("poet").aliases == {"latest": 1, "prod": 1}


def test_a_version_that_goes_while_it_is_compared_with_is_looked_up_again(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = file_job(registry, alias="prod", seed=1)
    attempt(registry, claimed(registry, first))
    real = registry.adapters.resolve
    gone = [AdapterNotFound("gone")]

    def resolve(reference: str) -> Any:
        if gone:
            raise gone.pop()
        return real(reference)

    gate = PublishGate("accuracy", "alias:prod")
    wish = {"fake": {"metrics": {"accuracy": 0.9}}}
    spec = file_job(registry, alias="prod", publish_if=gate, metadata=wish)
    monkeypatch.setattr(registry.adapters, "resolve", resolve)
    assert attempt(registry, claimed(registry, spec)).state == "succeeded"
    assert not gone
    assert registry.adapters.get("poet").aliases["prod"] == 2


@pytest.mark.parametrize(
    ("mine", "words", "hyper", "moved"),
    [
        (1.0, {}, {}, True),
        (2.0, {}, {}, False),
        (9.0, {}, {}, False),
        (9.0, {"move_latest": "always"}, {}, True),
        (9.0, {}, {"learning_rate": 1.0}, True),
        (9.0, {}, {"learning_rate_multiplier": 3.0}, True),
        (9.0, {"move_latest": "if_better"}, {"learning_rate": 1.0}, False),
    ],
)
def test_a_version_no_better_than_the_base_is_not_the_latest_unasked(
    registry: Registry, mine: float, words: dict[str, Any], hyper: dict[str, Any], moved: bool
) -> None:
    attempt(registry, claimed(registry, file_job(registry, seed=1)))
    first = file_job(registry)
    rates = replace(first.hyperparameters, **hyper)
    wish = {"fake": {"metrics": {"eval_loss": mine}}}
    spec = file_job(registry, hyperparameters=rates, metadata=wish, **words)

    end = attempt(registry, claimed(registry, spec))

    assert end.state == "succeeded"
    assert end.result is not None
    assert end.result.reference == "poet@2"
    assert registry.adapters.resolve("poet@2").version == 2
    assert registry.adapters.get("poet").aliases == {"latest": 2 if moved else 1}
    says = f"Not better than the base: the held-out loss is {mine:.4g}, the base's own is 2"
    assert (says in texts(registry, spec.id)) == (not moved)
    assert ("stays at version 1" in texts(registry, spec.id)) == (not moved)


def test_a_first_version_that_is_worse_than_the_base_says_that_it_answers_all_the_same(
    registry: Registry,
) -> None:
    spec = file_job(registry, metadata={"fake": {"metrics": {"eval_loss": 9.0}}})
    attempt(registry, claimed(registry, spec))
    assert registry.adapters.get("poet").aliases == {"latest": 1}
    assert "so this one answers under the bare name" in texts(registry, spec.id)
