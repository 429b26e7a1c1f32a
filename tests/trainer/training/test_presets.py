"""Presets move to a base by the norm of one atom; a job's own words always win."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
from adapters_core.layers.basis_cache import BasisCache
from registry.jobs.spec import PEFT_TASKS, Hyperparameters, Task
from trainer.errors import InvalidMethod
from trainer.tasks.causal_lm import CausalLM
from trainer.tasks.labels import ImageClasses, Regression, TextClasses
from trainer.training.preset_values import CANDIDATES, PRESETS
from trainer.training.presets import Setting, setting_of
from trainer.training.schedule import mixed, schedule_of

HYPER = Hyperparameters()
SCALED = sorted(name for name, preset in PRESETS.items() if preset.step is not None)


def base_of(
    width: int, names: tuple[str, ...] = ("q_proj", "k_proj", "v_proj"), depth: int = 2
) -> BaseSpec:
    targets = {f"layers.{i}.{name}": Shape(width, width) for i in range(depth) for name in names}
    return BaseSpec("made", "sha256:0", targets)


def setting(name: str, width: int = 96, **config: object) -> Setting:
    return setting_of(name, config, HYPER, base_of(width))


def atom_norm(method: Method, shape: Shape) -> float:
    """Return the norm of what one unit of one coefficient adds, seen in a delta itself."""
    basis = BasisCache(torch.device("cpu")).get(method, shape)
    layer = method.init(shape, torch.Generator().manual_seed(0), basis)
    for tensor in layer.values():
        if tensor.is_floating_point():
            tensor.view(-1)[7] = 1.0
    return float(method.delta(layer, shape, basis).norm())


def test_every_method_has_a_preset_and_auto_tries_known_ones() -> None:
    assert set(PRESETS) == set(registered())
    assert set(CANDIDATES) <= set(PRESETS)
    assert [name for name in SCALED if PRESETS[name].few] == ["fourierft"]


@pytest.mark.parametrize("width", [64, 96, 256])
@pytest.mark.parametrize("name", SCALED)
def test_a_step_moves_the_weight_as_much_at_any_width(name: str, width: int) -> None:
    found = setting(name, width, n_frequency=2 * width)  # few enough not to crowd the layer
    moved = found.rates.coefficients * atom_norm(found.method, Shape(width, width))
    assert moved == pytest.approx(PRESETS[name].step, rel=1e-3)
    assert found.rates.coefficients == pytest.approx(PRESETS[name].rate, rel=1e-3)


@pytest.mark.parametrize("name", SCALED)
def test_many_coefficients_move_less_each_where_they_crowd(name: str) -> None:
    few, many = (setting(name, 64, n_frequency=n) for n in (128, 512))
    moved = [s.rates.coefficients * atom_norm(s.method, Shape(64, 64)) for s in (few, many)]
    share = 0.5 if PRESETS[name].few else 1.0
    assert moved[1] == pytest.approx(share * moved[0], rel=1e-3)


def _moved(name: str, width: int, depth: int, **config: object) -> float:
    found = setting_of(name, config, HYPER, base_of(width, depth=depth))
    return found.rates.coefficients * atom_norm(found.method, Shape(width, width))


@pytest.mark.parametrize("name", SCALED)
def test_coefficients_of_many_layers_move_less_each(name: str) -> None:
    few, many = (_moved(name, 64, depth, n_frequency=100) for depth in (2, 380))  # query and value
    share = 0.5 if PRESETS[name].few else 1.0  # of 76,000 for the 19,000 that count as few
    assert few == pytest.approx(PRESETS[name].step, rel=1e-3)
    assert many == pytest.approx(share * few, rel=1e-3)


def test_the_bound_of_a_step_is_smaller_where_many_values_move() -> None:
    frod, loca = PRESETS["frod"], PRESETS["loca"]
    assert [frod.most_on(count) for count in (1, 60_000, 240_000)] == [0.25, 0.25, 0.125]
    assert loca.most_on(10**9) == loca.most
    assert PRESETS["fourierft"].most_on(10**9) == 0.5  # its step is smaller instead


def test_what_one_layer_has_more_is_counted_once() -> None:
    pattern = {"layers.0.q_proj": 128}
    plain, more = (
        _moved("fourierft", 64, 190, n_frequency=100, n_frequency_pattern=own)
        for own in ({}, pattern)
    )
    assert more == pytest.approx(plain * math.sqrt(38_000 / 38_028), rel=1e-3)
    assert plain == pytest.approx(0.05 / math.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("name", SCALED)
def test_a_jobs_own_scale_moves_the_rate_instead(name: str) -> None:
    plain, own = setting(name), setting(name, scaling=33.0)
    shape = Shape(96, 96)
    assert own.rates.coefficients * atom_norm(own.method, shape) == pytest.approx(
        plain.rates.coefficients * atom_norm(plain.method, shape), rel=1e-3
    )


def test_the_papers_scale_at_4096_is_what_it_is_there() -> None:
    wide, narrow = PRESETS["fourierft"].atom(Shape(4096, 4096)), PRESETS["fourierft"].atom
    assert 300 * wide == pytest.approx(0.0518, abs=1e-4)
    assert 18.75 * narrow(Shape(256, 256)) == pytest.approx(300 * wide)


def test_a_jobs_own_rates_win() -> None:
    given = Hyperparameters(
        learning_rate=0.7,
        learning_rate_multiplier=9.0,
        head_learning_rate=0.2,
        location_learning_rate=0.3,
    )
    rates = setting_of("loca", {}, given, base_of(96)).rates
    assert (rates.coefficients, rates.head, rates.positions) == (0.7, 0.2, 0.3)
    twice = dataclasses.replace(HYPER, learning_rate_multiplier=2.0)
    plain = setting("loca").rates.coefficients
    assert setting_of("loca", {}, twice, base_of(96)).rates.coefficients == 2 * plain


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("q_proj", "k_proj", "v_proj"), {"q_proj", "v_proj"}),
        (("query", "key", "value", "dense"), {"query", "value"}),
        (("attn.c_attn", "attn.c_proj"), {"c_attn"}),
        (("up", "down"), {"up", "down"}),
    ],
)
def test_query_and_value_are_adapted_where_a_job_does_not_say(
    names: tuple[str, ...], expected: set[str]
) -> None:
    found = setting_of("lora", {}, HYPER, base_of(96, names)).targets
    assert {path.rpartition(".")[2] for path in found} == expected
    assert len(found) == 2 * len(expected)


def test_a_jobs_own_layers_win_and_the_head_is_never_adapted() -> None:
    from adapters_core.base.heads import HeadSpec

    head = HeadSpec({"score.weight": (2, 96)}, frozenset({"score.weight"}))
    base = base_of(96)
    base = dataclasses.replace(
        base, targets=dict(base.targets) | {"score": Shape(2, 96)}, head=head
    )
    own = setting_of("lora", {"target_modules": ["k_proj"]}, HYPER, base).targets
    assert own == ["layers.0.k_proj", "layers.1.k_proj"]
    everything = setting_of("lora", {"target_modules": "all-linear"}, HYPER, base).targets
    assert len(everything) == 6
    with pytest.raises(InvalidMethod, match="k_proj, q_proj"):
        setting_of("lora", {"target_modules": ["score"]}, HYPER, base)


def test_more_levels_of_a_wavelet_say_so_by_their_type() -> None:
    found = setting("waveletft", peft_type="WAVELETFT", num_levels=2)
    assert found.method.config()["num_levels"] == 2
    with pytest.raises(InvalidMethod, match="peft_type"):
        setting("waveletft", num_levels=2)
    with pytest.raises(InvalidMethod) as raised:
        setting("waveletft", peft_type="LORA")
    assert raised.value.param == "peft_type"


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
def test_rates_rise_then_fall_and_are_never_zero(shape: str) -> None:
    hyper = Hyperparameters(n_epochs=4, batch_size=8, warmup_ratio=0.25, schedule=shape)  # type: ignore[arg-type]
    schedule = schedule_of(hyper, 37, seed=0)
    assert (schedule.num_steps, schedule.num_warmup) == (20, 5)
    shares = [schedule.share(step) for step in range(20)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[5] == 1.0
    assert all(a >= b > 0 for a, b in zip(shares[5:], shares[6:], strict=False))
    if shape != "constant":
        assert shares[-1] < 0.1
    if shape == "cosine":
        assert shares[12] == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 15)))


def test_warm_up_is_never_the_whole_run() -> None:
    hyper = Hyperparameters(n_epochs=1, batch_size=8, warmup_ratio=1.0)
    schedule = schedule_of(hyper, 3, seed=0)
    assert schedule.num_steps == 1
    assert schedule.share(0) == 1.0


def test_each_epoch_reads_every_example_once_in_an_order_of_its_own() -> None:
    schedule = schedule_of(Hyperparameters(n_epochs=3, batch_size=4), 10, seed=5)
    epochs = [
        [i for step in range(3 * e, 3 * e + 3) for i in schedule.examples(step)] for e in range(3)
    ]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert schedule_of(Hyperparameters(batch_size=4), 10, seed=6).examples(0) != epochs[0][:4]


def test_pefts_names_of_tasks_are_those_that_their_files_say() -> None:
    kinds: dict[Task, type[Any]] = {
        "causal_lm": CausalLM,
        "sequence_classification": TextClasses,
        "regression": Regression,
        "image_classification": ImageClasses,
    }
    assert {task: kind.peft_task for task, kind in kinds.items()} == PEFT_TASKS


def test_seeds_of_steps_do_not_meet() -> None:
    seeds = {mixed(seed, step) for seed in range(50) for step in range(200)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
