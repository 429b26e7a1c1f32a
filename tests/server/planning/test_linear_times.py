"""What one linear of each role takes, launched and recorded."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from adapters_core.layers.linear import AdaptedLinear, Switch
from server.planning.linear_times import LinearTimes, Run, role, sample


def linears(num_layers: int = 2) -> list[AdaptedLinear]:
    sizes = {"attn.q": (8, 32), "attn.k": (8, 16), "attn.o": (32, 8)}
    return [
        AdaptedLinear(nn.Linear(*size), f"layers.{i}.{name}", Switch())
        for i in range(num_layers)
        for name, size in sizes.items()
    ]


def test_linears_that_see_the_same_rows_share_a_recording_of_all_layers() -> None:
    seen: list[list[str]] = []

    def make() -> Run:
        seen.append([])

        def run(linear: AdaptedLinear, x: Tensor) -> None:
            assert x.shape == (4, linear.shape.in_)
            seen[-1].append(linear.path)

        return run

    def record(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        run()
        return run

    times = LinearTimes(linears(), record)
    sweep = times.stepped(make, 4)
    assert seen == [
        ["layers.0.attn.q", "layers.0.attn.k", "layers.1.attn.q", "layers.1.attn.k"],
        ["layers.0.attn.o", "layers.1.attn.o"],
    ]
    times.seconds = lambda run: 6.0  # type: ignore[method-assign]
    found = sweep()
    by_name = {name: seconds for (name, _), seconds in found.items()}
    # Twice the weights, twice the time; two layers.
    assert by_name == {"q": 2.0, "k": 1.0, "o": 3.0}


def test_without_recording_each_linear_is_timed_alone() -> None:
    seen: list[str] = []
    times = LinearTimes(linears(), None)
    found = times.stepped(lambda: lambda linear, x: seen.append(linear.path), 4)()
    assert seen == [linear.path for linear in linears()]
    assert set(found) == {role(linear.path, linear.shape) for linear in linears()}
    assert all(seconds >= 0 for seconds in found.values())


def test_linears_of_one_parent_see_the_same_rows() -> None:
    rows: dict[str, Tensor] = {}

    def run(linear: AdaptedLinear, x: Tensor) -> None:
        rows[linear.path] = x

    LinearTimes(linears(), None).launched(lambda: run, 4)()
    assert rows["layers.0.attn.q"] is rows["layers.0.attn.k"]
    assert not torch.equal(rows["layers.0.attn.q"], rows["layers.1.attn.q"])


def test_every_role_is_sampled() -> None:
    many = {linear.path: linear for linear in linears(3)}
    chosen = sample(many)
    assert {role(one.path, one.shape) for one in chosen} == {
        role(path, one.shape) for path, one in many.items()
    }
