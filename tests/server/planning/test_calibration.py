"""What is measured at start: every linear, bounded in time, nothing changed."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import tiny
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.layers.bank import Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from adapters_core.methods import C3A, FourierFT, LoRA
from server.planning.calibration import Calibration, calibrate
from server.planning.costs import Curve
from server_parts import CPU, QUERY_VALUE, torch_threads, weights_sha256


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def base() -> nn.Module:
    return tiny.model("llama")


@pytest.fixture(scope="module")
def spec(base: nn.Module) -> BaseSpec:
    return spec_of(base, "tiny")


@pytest.fixture(scope="module")
def injection(base: nn.Module, spec: BaseSpec) -> Injection:
    return inject(base)


@pytest.fixture(scope="module")
def measured(injection: Injection) -> Calibration:
    return calibrate(injection, BasisCache(CPU), [FourierFT(), LoRA()], most_s=1e6)


def layout(spec: BaseSpec, method: FourierFT | LoRA | C3A, ends: tuple[str, ...]) -> Layout:
    shapes = {path: shape for path, shape in spec.targets.items() if path.endswith(ends)}
    return Layout.of(method.of_layers(shapes), shapes)


def test_costs_are_positive_and_add_up_over_the_layers(
    measured: Calibration, spec: BaseSpec
) -> None:
    some = measured.costs_of(layout(spec, FourierFT(), QUERY_VALUE))
    every = measured.costs_of(layout(spec, FourierFT(), ("",)))
    assert some is not None
    assert every is not None
    for rows in (1, 8, 100):
        assert 0 < some.own.at(rows) < every.own.at(rows)
        assert 0 < some.token.at(rows) < every.token.at(rows)
        assert 0 < some.prompt.at(rows) < every.prompt.at(rows)
        assert some.split.at(rows) >= 0
    sizes = [4 * s.out * s.in_ for t, s in spec.targets.items() if t.endswith(QUERY_VALUE)]
    assert some.merged_bytes == sum(sizes)
    assert some.merge_s > 0


def test_what_was_not_measured_costs_what_the_dearest_does(
    measured: Calibration, spec: BaseSpec
) -> None:
    known = [measured.costs_of(layout(spec, m, ("q_proj",))) for m in (FourierFT(), LoRA())]
    other = measured.costs_of(layout(spec, C3A(), ("q_proj",)))
    assert other is not None
    tokens = [costs.token.at(16) for costs in known if costs is not None]
    assert other.token.at(16) >= max(tokens)


def test_more_coefficients_cost_more(measured: Calibration, spec: BaseSpec) -> None:
    usual = measured.costs_of(layout(spec, LoRA(r=8), ("q_proj",)))
    large = measured.costs_of(layout(spec, LoRA(r=32), ("q_proj",)))
    assert usual is not None
    assert large is not None
    assert large.token.at(16) == pytest.approx(4 * usual.token.at(16))


def test_layers_that_this_base_does_not_have_have_no_costs(measured: Calibration) -> None:
    elsewhere = spec_of(tiny.model("gpt2"), "other")
    assert measured.costs_of(layout(elsewhere, LoRA(), ("",))) is None


def test_without_time_one_method_is_measured(injection: Injection) -> None:
    hurried = calibrate(injection, BasisCache(CPU), [LoRA(), FourierFT()], most_s=0.0)
    assert set(hurried.token) == {"lora"}
    assert all(isinstance(curve, Curve) for curve in hurried.own.values())


def test_measuring_changes_nothing(
    base: nn.Module, injection: Injection, measured: Calibration
) -> None:
    before = weights_sha256(base)
    ids = torch.arange(6).view(1, -1)
    with torch.inference_mode():
        answer = base(input_ids=ids).logits
        calibrate(injection, BasisCache(CPU), [LoRA()], most_s=0.0)
        assert torch.equal(base(input_ids=ids).logits, answer)
    assert weights_sha256(base) == before
    assert injection.switch.plan is None


def test_what_is_shown_is_in_milliseconds(measured: Calibration) -> None:
    shown = measured.shown()
    curves = shown["milliseconds_by_rows"]
    assert isinstance(curves, dict)
    linears = 1e3 * sum(curve.at(16) for curve in measured.own.values())
    assert curves["linears"]["16"] == pytest.approx(linears, abs=1e-3)
    assert set(curves) == {
        *("linears", "split", "fourierft tokens", "fourierft prompt", "lora tokens", "lora prompt")
    }


def test_an_adapter_with_nothing_factored_has_no_costs(measured: Calibration) -> None:
    """Such as one of experts alone: it is served in the mode that there is."""
    assert measured.costs_of(Layout.of({}, {})) is None


def test_what_is_recorded_is_what_steps_are(injection: Injection, spec: BaseSpec) -> None:
    """Own weights, halves of them and single tokens; prompts are launched as they come."""
    recorded: list[Callable[[], Tensor]] = []
    replayed: list[int] = []

    def record(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        run()
        number = len(recorded)
        recorded.append(run)

        def replay() -> Tensor:
            replayed.append(number)
            return run()

        return replay

    methods = [FourierFT(), LoRA()]
    found = calibrate(injection, BasisCache(CPU), methods, most_s=1e6, record=record)
    # Attention; gate and up; down: by 4 numbers of rows, twice 3, and 3 a method.
    assert len(recorded) == 3 * (4 + 2 * 3 + 2 * 3)
    assert set(replayed) == set(range(len(recorded)))
    some = found.costs_of(layout(spec, FourierFT(), ("",)))
    assert some is not None
    assert some.token.at(16) > 0
    assert some.own.at(64) > 0


def test_where_recording_fails_launches_are_timed(injection: Injection) -> None:
    found = calibrate(injection, BasisCache(CPU), [LoRA()], most_s=0.0, record=lambda run: None)
    assert set(found.token) == {"lora"}
