import math
from collections.abc import Iterator

import pytest
import torch

from adapters_core.contract.layer import Shape
from adapters_core.methods import LoRA
from bench.studies import toys as toys


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other cost more than they bring, at such sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_line_of_the_first_toy_has_128_numbers() -> None:
    for _, method, _ in toys.contenders("gaussians"):
        specs = method.tensors(Shape(64, 64)).values()
        assert sum(math.prod(spec.shape) for spec in specs if spec.floating) == 128


def test_the_layer_is_the_update_alone() -> None:
    layer = toys.OnlyUpdate(LoRA(1, 1.0), Shape(6, 4), 0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
        weight = layer(torch.eye(4)).T
    assert torch.linalg.matrix_rank(weight) == 1
    assert not layer(torch.zeros(1, 4)).any()


def test_the_classes_lie_apart() -> None:
    x, y = toys.gaussians(0)
    centres = torch.stack([x[y == one].mean(0) for one in range(8)])
    nearest = torch.cdist(x, centres).argmin(1)
    assert torch.equal(nearest, y)


def test_a_toy_tells_when_everything_was_right() -> None:
    found = toys.gaussian_toy(LoRA(64, 64.0), 1e-2, 400, 0)
    assert found["accuracy"] == 1.0
    assert 0 < found["epoch"] < 400
    assert toys.gaussian_toy(LoRA(64, 64.0), 1e-2, 2, 0)["epoch"] is None


def test_no_picture_is_learned_and_held_out() -> None:
    x, y, held_x, held_y = toys.large_digits(0)
    assert x.shape == (1297, 784)
    assert held_x.shape == (500, 784)
    assert len(y) == 1297
    assert len(held_y) == 500


@pytest.mark.slow
def test_128_coefficients_reach_all_points_and_lora_of_rank_1_does_not() -> None:
    reached = {row["what"]: row for row in toys.rows_of("gaussians", 2000, 3)}
    assert reached["gaussians, fourierft n=128"]["reached_100"] == 3
    assert reached["gaussians, lora r=1"]["reached_100"] == 0
