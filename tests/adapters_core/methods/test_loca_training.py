"""LoCA's training: locations that are learned by differences, in turns with their coefficients."""

from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.fft
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.layer import Shape
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.linear import AdaptedLinear, Switch
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods.loca import LoCA, distinct_locations
from tiny_bases import relative

CPU = torch.device("cpu")
EPS = torch.finfo(torch.float32).eps
SPECTRUM, LOCATIONS, POSITIONS = "loca_spectrum", "loca_locations", "loca_positions"
Q = "model.layers.0.self_attn.q_proj"
#: By matrices, by Fourier transforms, by either in turn; one row, one column, odd ones.
SHAPES = [Shape(12, 9), Shape(131, 140), Shape(20, 131), Shape(131, 20), Shape(1, 7), Shape(7, 1)]


def drawn(shape: Shape, n: int, seed: int = 0, size: float = 0.05) -> dict[str, Tensor]:
    """Return what training moves, with small coefficients, ready for gradients."""
    generator = torch.Generator().manual_seed(seed)
    trained = LoCA(n=n).training_init(shape, generator)
    trained[SPECTRUM] = size * torch.randn(n, generator=generator)
    return {name: tensor.requires_grad_() for name, tensor in trained.items()}


def delta_of(method: LoCA, trained: dict[str, Tensor], shape: Shape) -> Tensor:
    return method.training_delta(trained, shape, method.basis(shape, CPU, torch.float32))


def probe_of(shape: Shape) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


def backward(method: LoCA, trained: dict[str, Tensor], shape: Shape) -> None:
    (delta_of(method, trained, shape) * probe_of(shape)).sum().backward()


def ends_of(shape: Shape) -> Tensor:
    return torch.tensor([[shape.out - 1], [shape.in_ - 1]], dtype=torch.float64)


def locations_of(trained: dict[str, Tensor], shape: Shape) -> Tensor:
    """Return the rule as it is written: round(clamp(u, 0, .999) (size - 1))."""
    return (trained[POSITIONS].detach().clamp(0, 0.999) * ends_of(shape).float()).round().long()


def true_loss(method: LoCA, spectrum: Tensor, locations: Tensor, shape: Shape) -> float:
    """Return the probe's product with the delta by the defining sum in float64."""
    flat = torch.arange(shape.out * shape.in_)
    layer = {SPECTRUM: spectrum.detach(), LOCATIONS: locations}
    cells = method.cells(layer, shape, flat // shape.in_, flat % shape.in_)
    return float(cells @ probe_of(shape).double().view(-1))


@pytest.mark.parametrize("shape", SHAPES)
def test_fresh_training_changes_nothing_and_can_move_everywhere(shape: Shape) -> None:
    method = LoCA(n=7)
    fresh = method.training_init(shape, torch.Generator().manual_seed(0))
    assert set(fresh) == {SPECTRUM, POSITIONS}
    assert fresh[POSITIONS].dtype == torch.float32
    assert fresh[POSITIONS].shape == (2, 7)
    assert 0 <= float(fresh[POSITIONS].min()) <= float(fresh[POSITIONS].max()) <= 0.999
    assert not delta_of(method, fresh, shape).any()
    again = method.training_init(shape, torch.Generator().manual_seed(0))
    assert torch.equal(again[POSITIONS], fresh[POSITIONS])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_delta_is_scipys_at_the_rounded_positions(shape: Shape) -> None:
    method = LoCA(n=7, scale=-2.5)
    trained = drawn(shape, 7)
    dense = torch.zeros(*shape, dtype=torch.float64)
    rows, cols = locations_of(trained, shape)
    dense.index_put_((rows, cols), trained[SPECTRUM].detach().double(), accumulate=True)
    true = torch.from_numpy(-2.5 * scipy.fft.idctn(dense.numpy(), norm="ortho"))
    assert relative(delta_of(method, trained, shape), true) < 16 * EPS


@pytest.mark.parametrize("shape", SHAPES)
def test_the_coefficients_gradient_is_scipys(shape: Shape) -> None:
    method, trained = LoCA(n=7, scale=3.0), drawn(shape, 7)
    backward(method, trained, shape)
    spectrum = torch.from_numpy(scipy.fft.dctn(probe_of(shape).double().numpy(), norm="ortho"))
    rows, cols = locations_of(trained, shape)
    assert relative(trained[SPECTRUM].grad, 3.0 * spectrum[rows, cols]) < 16 * EPS


@pytest.mark.parametrize("shape", SHAPES)
def test_a_locations_gradient_is_half_the_difference_between_its_neighbours(shape: Shape) -> None:
    """A central difference of the true sum with step 1; at an edge, of the location itself."""
    method, trained = LoCA(n=9, scale=2.0), drawn(shape, 9)
    with torch.no_grad():
        trained[POSITIONS][:, 0] = 0.0
        trained[POSITIONS][:, 1] = 0.999
    backward(method, trained, shape)
    locations, ends = locations_of(trained, shape), ends_of(shape)
    true = torch.zeros(2, 9, dtype=torch.float64)
    for side in (0, 1):
        for k in range(9):
            losses = []
            for step in (1, -1):
                moved = locations.clone()
                moved[side, k] = (moved[side, k] + step).clamp(0, int(ends[side]))
                losses.append(true_loss(method, trained[SPECTRUM], moved, shape))
            true[side, k] = (losses[0] - losses[1]) / 2
    assert float(true.abs().max()) < 1, "the clamp is another test's"
    got = trained[POSITIONS].grad
    assert got is not None
    assert torch.allclose(got.double(), true * ends, rtol=1e-4, atol=1e-4)


def test_a_locations_gradient_ends_at_one() -> None:
    shape, method = Shape(12, 9), LoCA(n=9)
    small, large = drawn(shape, 9, size=0.05), drawn(shape, 9, size=50.0)
    for trained in (small, large):
        backward(method, trained, shape)
    assert small[POSITIONS].grad is not None
    assert large[POSITIONS].grad is not None
    ends = ends_of(shape).float()
    slopes = small[POSITIONS].grad / ends
    assert torch.allclose(large[POSITIONS].grad / ends, (1000 * slopes).clamp(-1, 1), atol=1e-3)
    assert float(large[POSITIONS].grad[0].abs().max()) == 11.0
    assert float(large[POSITIONS].grad[1].abs().max()) == 8.0


def test_a_position_beyond_an_end_stays_there() -> None:
    shape, method = Shape(12, 9), LoCA(n=4)
    trained = drawn(shape, 4)
    with torch.no_grad():
        trained[POSITIONS][:, 0] = -0.2
        trained[POSITIONS][:, 1] = 1.3
    backward(method, trained, shape)
    assert trained[POSITIONS].grad is not None
    assert not trained[POSITIONS].grad[:, :2].any()
    assert trained[POSITIONS].grad[:, 2:].all()
    assert method.export(trained, shape)[LOCATIONS][:, :2].long().tolist() == [[0, 11], [0, 8]]


def test_the_last_thousandth_is_out_of_reach() -> None:
    trained = {SPECTRUM: torch.zeros(1), POSITIONS: torch.ones(2, 1)}
    exported = LoCA(n=1).export(trained, Shape(4096, 512))
    assert exported[LOCATIONS].long().tolist() == [[4091], [510]]


def test_positions_that_are_no_numbers_never_leave_the_layer() -> None:
    """The compiled loops check no bounds."""
    shape, method = Shape(131, 140), LoCA(n=4)
    trained = drawn(shape, 4)
    with torch.no_grad():
        trained[POSITIONS][:, 2] = torch.nan
        trained[POSITIONS][:, 3] = torch.inf
    backward(method, trained, shape)
    rows, cols = method.export(trained, shape)[LOCATIONS].long().tolist()
    assert (rows[2], cols[2], rows[3], cols[3]) == (0, 0, 130, 139)


def test_a_float64_basis_trains_too() -> None:
    shape, method, trained = Shape(131, 140), LoCA(n=9), drawn(Shape(131, 140), 9)
    backward(method, trained, shape)
    single = {name: tensor.grad for name, tensor in trained.items()}
    for tensor in trained.values():
        tensor.grad = None
    basis = method.basis(shape, CPU, torch.float64)
    (method.training_delta(trained, shape, basis) * probe_of(shape)).sum().backward()
    for name, tensor in trained.items():
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.float32
        assert relative(single[name], tensor.grad) < 64 * EPS


def moves(num_steps: int) -> str:
    """Return one letter a step: s where the spectrum moves, p where positions do."""
    letters = {(SPECTRUM,): "s", (POSITIONS,): "p"}
    steps = (LoCA().training_schedule(step, num_steps) for step in range(num_steps))
    return "".join(letters[tuple(names)] for names in steps)


@pytest.mark.parametrize(
    ("num_steps", "schedule"),
    [
        (700, (10 * "s" + 20 * "p") * 2 + 640 * "s"),  # a tenth ends within the third cycle
        (650, (10 * "s" + 20 * "p") * 2 + 590 * "s"),
        (1000, (10 * "s" + 20 * "p") * 3 + 910 * "s"),
        (1200, (10 * "s" + 20 * "p") * 4 + 1080 * "s"),
        (1150, (10 * "s" + 20 * "p") * 3 + 10 * "s" + 15 * "p" + 1035 * "s"),
        (300, 10 * "s" + 20 * "p" + 270 * "s"),
        (200, 10 * "s" + 10 * "p" + 180 * "s"),
        (100, 100 * "s"),
        (1, "s"),
    ],
)
def test_spectrum_and_positions_take_turns_in_the_first_tenth(
    num_steps: int, schedule: str
) -> None:
    assert moves(num_steps) == schedule


class Regression:
    """One linear of a toy base, learning a smooth target update from its answers."""

    def __init__(self, shape: Shape, n: int, rates: tuple[float, float]) -> None:
        torch.manual_seed(0)
        self.linear = AdaptedLinear(nn.Linear(shape.in_, shape.out), Q, Switch())
        self.linear.base.requires_grad_(False)
        generator = torch.Generator().manual_seed(2)
        self.plan = TrainingPlan(LoCA(n=n), {Q: shape}, BasisCache(CPU), generator)
        layer = self.plan.layers[Q]
        self.layer = layer
        groups = [
            {"params": [layer[SPECTRUM]], "lr": rates[0]},
            {"params": [layer[POSITIONS]], "lr": rates[1]},
        ]
        self.optimiser = torch.optim.Adam(groups)
        rows, cols = torch.arange(shape.out)[:, None], torch.arange(shape.in_)
        spectrum = 2.0 * torch.exp(-(rows**2 + cols**2) / 60.0)  # strong where both are low
        self.target = torch.from_numpy(scipy.fft.idctn(spectrum.numpy(), norm="ortho")).float()
        self.x = torch.randn(4 * shape.in_, shape.in_, generator=generator)

    def loss(self, part: slice = slice(None)) -> Tensor:
        x = self.x[part]
        wanted = self.linear.base_rows(x) + x @ self.target.T
        return (self.plan.forward(self.linear, x) - wanted).square().mean()

    def step(self, step: int, num_steps: int, pieces: int = 1) -> None:
        """Take one step of the optimiser over gradients gathered from some pieces of the data."""
        self.optimiser.zero_grad()
        for piece in range(pieces):
            (self.loss(slice(piece, None, pieces)) / pieces).backward()
        self.plan.freeze_scheduled(step, num_steps)
        self.optimiser.step()


def test_learned_locations_beat_fixed_ones_at_equal_n() -> None:
    num_steps = 400
    learned, fixed = (Regression(Shape(24, 20), 24, (0.1, rate)) for rate in (0.04, 0.0))
    gains = []
    for run in (learned, fixed):
        start = run.loss().item()
        for step in range(num_steps):
            run.step(step, num_steps)
        gains.append(start - run.loss().item())
    assert gains[1] > 0
    assert gains[0] > 3 * gains[1]


def test_gradient_accumulation_does_not_advance_the_schedule() -> None:
    whole, gathered = (Regression(Shape(24, 20), 16, (0.05, 0.02)) for _ in range(2))
    start = whole.layer[POSITIONS].detach().clone()
    for step in range(12):
        before = {name: tensor.detach().clone() for name, tensor in gathered.layer.items()}
        whole.step(step, 300)
        gathered.step(step, 300, pieces=4)
        moved = {name for name, t in gathered.layer.items() if not torch.equal(t, before[name])}
        assert moved == {SPECTRUM if step < 10 else POSITIONS}
    assert not torch.equal(whole.layer[POSITIONS], start)
    for name, tensor in whole.layer.items():
        assert torch.allclose(tensor, gathered.layer[name], atol=1e-4)


def test_what_was_trained_is_what_is_served(
    llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    method, shape = LoCA(n=50, scale=2.0), llama_spec.targets[Q]
    plan = TrainingPlan(method, {Q: shape}, BasisCache(CPU), torch.Generator().manual_seed(0))
    with torch.no_grad():
        plan.layers[Q][SPECTRUM].normal_(generator=torch.Generator().manual_seed(1))
        plan.layers[Q][POSITIONS].add_(0.1)  # some beyond the end
    write_adapter(tmp_path, method, plan.exported(), llama_spec)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    prefix = f"base_model.model.{Q}."
    assert {key.removeprefix(prefix): tensor.dtype for key, tensor in stored.items()} == {
        SPECTRUM: torch.float32,
        LOCATIONS: torch.uint16,
    }
    adapter = read(tmp_path)
    assert adapter.methods == {Q: method}
    basis = method.basis(shape, CPU, torch.float32)
    trained = method.training_delta(plan.layers[Q], shape, basis)
    assert torch.equal(method.delta(adapter.layers[Q], shape, basis), trained)
    assert torch.equal(adapter.layers[Q][LOCATIONS].long(), locations_of(plan.layers[Q], shape))


def test_a_layer_too_wide_for_uint16_keeps_its_locations() -> None:
    trained = {SPECTRUM: torch.zeros(2), POSITIONS: torch.tensor([[0.0, 0.5], [0.9, 0.25]])}
    exported = LoCA(n=2).export(trained, Shape(3, 80_001))
    assert exported[LOCATIONS].dtype == torch.int32
    assert exported[LOCATIONS].tolist() == [[0, 1], [72_000, 20_000]]


def test_coefficients_in_one_cell_count_once() -> None:
    shape = Shape(5, 8)
    layer = {SPECTRUM: torch.ones(4), LOCATIONS: torch.tensor([[1, 1, 2, 1], [3, 3, 3, 4]])}
    assert distinct_locations(layer, shape) == 3
    narrow = layer | {LOCATIONS: layer[LOCATIONS].to(torch.uint16)}
    assert distinct_locations(narrow, shape) == 3
