"""What a row costs is learned from steps, and not guessed from steps that are all alike."""

from random import Random

import pytest

from server.scheduling.step_costs import StepCosts


def observed(costs: StepCosts, fixed_s: float, row_s: float, noise: float = 0.0) -> None:
    random = Random(0)
    for _ in range(600):
        rows = random.randint(1, 32)
        costs.observe(rows, (fixed_s + row_s * rows) * random.uniform(1 - noise, 1 + noise))


def test_the_line_of_the_steps_is_found() -> None:
    costs = StepCosts()
    observed(costs, 0.030, 0.002, noise=0.2)

    assert costs.line is not None
    assert costs.line.fixed_s == pytest.approx(0.030, rel=0.2)
    assert costs.line.row_s == pytest.approx(0.002, rel=0.2)


def test_nothing_is_known_of_steps_that_are_all_alike() -> None:
    costs = StepCosts()
    for _ in range(500):
        costs.observe(8, 0.04)

    assert costs.line is None


def test_a_machine_that_changes_is_learned_anew() -> None:
    costs = StepCosts()
    observed(costs, 0.030, 0.002)
    for _ in range(4):
        observed(costs, 0.010, 0.001)

    assert costs.line is not None
    assert costs.line.at(10) == pytest.approx(0.020, rel=0.05)


def test_no_row_and_no_step_costs_less_than_nothing() -> None:
    falling, steep = StepCosts(), StepCosts()
    for rows in range(1, 20):
        falling.observe(rows, 1.0 - 0.01 * rows)
        steep.observe(rows, 0.01 * rows * rows)

    assert falling.line is not None
    assert falling.line.row_s == 0.0
    assert steep.line is not None
    assert steep.line.fixed_s >= 0.0
