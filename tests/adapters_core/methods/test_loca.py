"""LoCA against the sum written out and scipy; refused, repeated and different locations."""

import itertools
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import scipy.fft
import torch
from safetensors.torch import load_file, save_file

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import PackedLayer, Rows, Segment, Shape
from adapters_core.errors import InvalidAdapter, NoEffect
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.kernels import located_rows, located_rows_reference
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import usual_methods, worst_error
from adapters_core.methods.loca import LoCA
from adapters_core.transforms.cosine import cosine_table
from adapters_core.transforms.cosine_sums import CosineBasis
from tiny_bases import relative

CPU = torch.device("cpu")
SPECTRUM, LOCATIONS = "loca_spectrum", "loca_locations"
EPS = torch.finfo(torch.float32).eps
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


def layer_of(method: LoCA, shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layer = method.init(shape, generator)
    return layer | {SPECTRUM: torch.randn(method.n, generator=generator)}


def delta_of(method: LoCA, layer: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    return method.delta(layer, shape, method.basis(shape, CPU, torch.float32))


def cosine_basis(shape: Shape, dense: bool) -> CosineBasis:
    """Return a basis that takes matrices or Fourier transforms whatever the widths."""
    out, in_ = (cosine_table(size, CPU, torch.float32, dense) for size in shape)
    return CosineBasis(out, in_, CPU, torch.float32)


def all_cells(method: LoCA, layer: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    flat = torch.arange(shape.out * shape.in_)
    return method.cells(layer, shape, flat // shape.in_, flat % shape.in_).view(*shape)


def wave(k: int, t: int, size: int) -> float:
    scale = math.sqrt((1 if k == 0 else 2) / size)
    return scale * math.cos(math.pi * (2 * t + 1) * k / (2 * size))


@pytest.mark.parametrize("shape", [Shape(4, 6), Shape(6, 4), Shape(5, 7), Shape(4, 1)])
@pytest.mark.parametrize("n", [1, 4])
def test_delta_is_the_sum_written_out(shape: Shape, n: int) -> None:
    method = LoCA(n=n, scale=2.5)
    layer = layer_of(method, shape)
    locations = list(zip(*layer[LOCATIONS].tolist(), strict=True))
    true = torch.tensor(
        [
            [
                2.5
                * sum(
                    a * wave(j, p, shape.out) * wave(k, q, shape.in_)
                    for a, (j, k) in zip(layer[SPECTRUM].tolist(), locations, strict=True)
                )
                for q in range(shape.in_)
            ]
            for p in range(shape.out)
        ],
        dtype=torch.float64,
    )
    assert relative(delta_of(method, layer, shape), true) < 1e-6
    assert relative(all_cells(method, layer, shape), true) < 1e-14


@pytest.mark.parametrize("shape", [Shape(45, 77), Shape(96, 1), Shape(131, 257), Shape(1024, 512)])
def test_delta_is_scipys(shape: Shape) -> None:
    method = LoCA(n=90, scale=-3.0)
    layer = layer_of(method, shape)
    dense = torch.zeros(*shape, dtype=torch.float64)
    dense[layer[LOCATIONS][0].long(), layer[LOCATIONS][1].long()] = layer[SPECTRUM].double()
    true = torch.from_numpy(-3.0 * scipy.fft.idctn(dense.numpy(), norm="ortho"))
    assert relative(delta_of(method, layer, shape), true) < 8 * EPS
    exact = method.delta(layer, shape, method.basis(shape, CPU, torch.float64))
    assert relative(exact, true) < EPS


def test_coefficients_at_one_location_add() -> None:
    method, shape = LoCA(n=3), Shape(5, 8)
    layer = {
        SPECTRUM: torch.tensor([1.0, 0.5, 2.0]),
        LOCATIONS: torch.tensor([[2, 4, 2], [7, 0, 7]]),
    }
    once = {
        SPECTRUM: torch.tensor([3.0, 0.5]),
        LOCATIONS: torch.tensor([[2, 4], [7, 0]]),
    }
    true = all_cells(LoCA(n=2), once, shape)
    assert relative(all_cells(method, layer, shape), true) < 1e-14
    assert relative(delta_of(method, layer, shape), true) < 8 * EPS
    bases = BasisCache(CPU)
    bank = Bank(Layout.of({"": method}, {"": shape}), bases)
    slot = bank.add(bank.pack({"": method}, {"": layer}))
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    got = bank.apply("", x, Rows(torch.full((3,), slot), 3))
    assert got is not None
    assert relative(got, x.double() @ true.T) < 8 * EPS


@pytest.mark.parametrize(
    "shape",
    [Shape(4, 6), Shape(1, 7), Shape(7, 1), Shape(255, 257), Shape(257, 129), Shape(523, 140)],
)
def test_blocks_of_rows_make_the_whole(shape: Shape) -> None:
    """Blocks begin and end anywhere, and several columns share a block of the first transform."""
    method = LoCA(n=min(600, shape.out * shape.in_), scale=3.0)
    layer, blocks = layer_of(method, shape), cosine_basis(shape, dense=False)
    assert blocks.has_blocks
    true = all_cells(method, layer, shape)
    assert relative(method.delta_many([layer, layer], shape, blocks)[1], true) < 8 * EPS
    random = torch.randn(*shape, generator=torch.Generator().manual_seed(6))
    for golden in (random, random.to(torch.bfloat16)):
        for weight in (golden, golden.T.contiguous().T):  # as GPT-2's Conv1D stores it
            merged = torch.full(shape, torch.nan, dtype=golden.dtype)
            method.merge_many([layer], [weight], [merged], shape, blocks)
            exact = golden.double() + true
            assert relative(merged, exact) < max(8 * EPS, torch.finfo(golden.dtype).eps)


def test_a_unit_of_a_coefficient_has_the_norm_scale() -> None:
    method, shape = LoCA(n=1, scale=0.7), Shape(45, 77)
    layer = layer_of(method, shape) | {SPECTRUM: torch.ones(1)}
    assert math.isclose(float(delta_of(method, layer, shape).norm()), 0.7, rel_tol=1e-6)


def test_gradients_reach_the_spectrum() -> None:
    method, shape = LoCA(n=30, scale=3.0), Shape(45, 140)
    layer = layer_of(method, shape)
    layer[SPECTRUM].requires_grad_()
    probe = torch.randn(*shape, generator=torch.Generator().manual_seed(9))
    (delta_of(method, layer, shape) * probe).sum().backward()
    # The gradient is the forward transform of the upstream one, read at the locations.
    spectrum = torch.from_numpy(scipy.fft.dctn(probe.double().numpy(), norm="ortho"))
    true = 3.0 * spectrum[layer[LOCATIONS][0].long(), layer[LOCATIONS][1].long()]
    assert relative(layer[SPECTRUM].grad, true) < 8 * EPS


def test_fresh_locations_are_all_different_and_the_generators() -> None:
    method, shape = LoCA(n=40), Shape(5, 8)
    drawn = [method.init(shape, torch.Generator().manual_seed(s))[LOCATIONS] for s in (0, 0, 1)]
    assert len(set(zip(*drawn[0].tolist(), strict=True))) == 40
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    method.check({SPECTRUM: torch.zeros(40), LOCATIONS: drawn[0]}, shape)


def test_layers_with_other_locations_are_transformed_together() -> None:
    method, shape = LoCA(n=60), Shape(53, 180)
    layers = [layer_of(method, shape, seed) for seed in range(3)]
    layers[1][LOCATIONS] = layers[1][LOCATIONS].to(torch.uint16)
    many = method.delta_many(layers, shape, method.basis(shape, CPU, torch.float32))
    for layer, got in zip(layers, many, strict=True):
        assert relative(got, all_cells(method, layer, shape)) < 8 * EPS


def written(folder: Path, spec: BaseSpec) -> dict[str, dict[str, torch.Tensor]]:
    method = LoCA(n=50, scale=2.0)
    layers = {target: layer_of(method, spec.targets[target], i) for i, target in enumerate((Q, V))}
    write_adapter(folder, method, layers, spec)
    return layers


def change(folder: Path, name: str, tensor: torch.Tensor) -> str:
    """Put a tensor of layer Q into the file; return its key."""
    file, key = folder / "adapter_model.safetensors", f"base_model.model.{Q}.{name}"
    tensors = load_file(file)
    assert key in tensors
    save_file(tensors | {key: tensor}, file)
    return key


Read = Callable[..., Adapter]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint16])
def test_locations_may_come_in_any_integers(
    dtype: torch.dtype, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    layers = written(tmp_path, llama_spec)
    change(tmp_path, LOCATIONS, layers[Q][LOCATIONS].to(dtype))
    adapter = read(tmp_path)
    assert set(adapter.methods.values()) == {LoCA(n=50, scale=2.0)}
    for target, layer in layers.items():
        method, shape = adapter.methods[target], llama_spec.targets[target]
        assert torch.equal(adapter.layers[target][SPECTRUM], layer[SPECTRUM])
        assert torch.equal(adapter.layers[target][LOCATIONS].long(), layer[LOCATIONS].long())
        basis = method.basis(shape, CPU, torch.float32)
        assert torch.equal(
            method.delta(adapter.layers[target], shape, basis), method.delta(layer, shape, basis)
        )
        assert torch.equal(
            method.pack(adapter.layers[target], shape, basis), method.pack(layer, shape, basis)
        )


@pytest.mark.parametrize(
    ("row", "col", "message"),
    [
        (96, 0, r"row 96 is not in 0\.\.95"),
        (0, 96, r"column 96 is not in 0\.\.95"),
        (-1, 5, r"row -1 is not in 0\.\.95"),
        (5, -(2**40), r"column -1099511627776 is not in 0\.\.95"),
        (2**62, 0, r"row 4611686018427387904 is not in 0\.\.95"),
        (-(2**63), 0, r"row -9223372036854775808 is not in 0\.\.95"),
    ],
)
def test_a_location_outside_the_layer_is_refused(
    row: int, col: int, message: str, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    locations = written(tmp_path, llama_spec)[Q][LOCATIONS].long()
    locations[:, 7] = torch.tensor([row, col])
    key = change(tmp_path, LOCATIONS, locations)
    with pytest.raises(InvalidAdapter, match=message) as caught:
        read(tmp_path)
    assert caught.value.param == key


def test_a_uint16_location_is_not_taken_for_a_negative_one(
    llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    locations = written(tmp_path, llama_spec)[Q][LOCATIONS].long()
    locations[1, 7] = 65535
    change(tmp_path, LOCATIONS, locations.to(torch.uint16))
    with pytest.raises(InvalidAdapter, match=r"column 65535 is not in 0\.\.95"):
        read(tmp_path)


def test_locations_as_floats_are_refused(llama_spec: BaseSpec, tmp_path: Path, read: Read) -> None:
    locations = written(tmp_path, llama_spec)[Q][LOCATIONS]
    key = change(tmp_path, LOCATIONS, locations.float())
    with pytest.raises(InvalidAdapter, match=r"dtype torch\.float32") as caught:
        read(tmp_path)
    assert caught.value.param == key


@pytest.mark.parametrize("dtype", [torch.bool, torch.int8, torch.complex64, torch.float32])
def test_locations_of_any_other_type_are_refused(dtype: torch.dtype) -> None:
    layer = {SPECTRUM: torch.ones(2), LOCATIONS: torch.zeros(2, 2, dtype=dtype)}
    with pytest.raises(InvalidAdapter, match=f"not {dtype}"):
        LoCA(n=2).check(layer, Shape(5, 8))


@pytest.mark.parametrize("shape", [(2, 0), (2, 49), (50, 2), (100,), (3, 50), (1, 2, 50)])
def test_locations_of_another_shape_are_refused(
    shape: tuple[int, ...], llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    written(tmp_path, llama_spec)
    key = change(tmp_path, LOCATIONS, torch.zeros(shape, dtype=torch.int32))
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == key


@pytest.mark.parametrize("n", [0, -1, 96 * 96 + 1, 10**15, 10**40, 2.5, "50", True])
def test_an_impossible_n_costs_nothing_and_is_named(
    n: object, llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    written(tmp_path, llama_spec)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"n_frequency": n}))
    with pytest.raises(InvalidAdapter) as caught:
        read(tmp_path)
    assert caught.value.param == "n_frequency"


def test_a_product_beyond_float32_is_refused(
    llama_spec: BaseSpec, tmp_path: Path, read: Read
) -> None:
    spectrum = written(tmp_path, llama_spec)[Q][SPECTRUM].double()
    spectrum[3] = -2e38  # times the scale of 2
    key = change(tmp_path, SPECTRUM, spectrum)
    with pytest.raises(InvalidAdapter, match=r"4e\+38; float32 ends at 3\.4e\+38") as caught:
        read(tmp_path)
    assert caught.value.param == key


def test_nothing_outside_a_layer_is_packed() -> None:
    """The compiled loop checks no bounds, so the bank is the last door."""
    method, shape = LoCA(n=2), Shape(5, 8)
    basis = method.basis(shape, CPU, torch.float32)
    golden, fourier = torch.zeros(5, 8), cosine_basis(shape, dense=False)
    for locations in (torch.tensor([[0, 5], [0, 0]]), torch.tensor([[0, 0], [-1, 0]])):
        layer = {SPECTRUM: torch.ones(2), LOCATIONS: locations}
        attempts: list[Callable[..., object]] = [
            partial(method.pack, layer, shape),
            partial(method.delta, layer, shape),
            partial(method.delta_many, [layer], shape),
            partial(method.merge_many, [layer], [golden], [golden], shape),
        ]
        for attempt, way in itertools.product(attempts, (basis, fourier)):
            with pytest.raises(InvalidAdapter, match="is not in 0"):
                attempt(way)
    with pytest.raises(InvalidAdapter, match="too wide"):
        method.check({LOCATIONS: torch.zeros(2, 2).int()}, Shape(2**24 + 1, 8))


def test_a_spectrum_of_zeros_is_refused(llama_spec: BaseSpec, tmp_path: Path, read: Read) -> None:
    method, shape = LoCA(n=5), llama_spec.targets[Q]
    fresh = method.init(shape, torch.Generator().manual_seed(0))
    assert fresh[LOCATIONS].any()
    write_adapter(tmp_path, method, {Q: fresh}, llama_spec)
    with pytest.raises(NoEffect):
        read(tmp_path)


def test_n_may_differ_between_layers(llama_spec: BaseSpec, tmp_path: Path, read: Read) -> None:
    written(tmp_path, llama_spec)
    shorter = layer_of(LoCA(n=9), llama_spec.targets[Q])
    change(tmp_path, SPECTRUM, shorter[SPECTRUM])
    change(tmp_path, LOCATIONS, shorter[LOCATIONS])
    file = tmp_path / "adapter_config.json"
    config = json.loads(file.read_text()) | {"n_frequency_pattern": {"q_proj": 9}}
    file.write_text(json.dumps(config))
    adapter = read(tmp_path)
    assert [adapter.methods[target].n for target in (Q, V)] == [9, 50]


@pytest.mark.parametrize(
    ("options", "param"),
    [({"n": 0}, "n_frequency"), ({"scale": math.nan}, "scaling"), ({"scale": math.inf}, "scaling")],
)
def test_impossible_hyper_parameters_are_named(options: dict[str, float], param: str) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        LoCA(**options)
    assert caught.value.param == param


def test_more_coefficients_than_locations_are_refused() -> None:
    with pytest.raises(InvalidAdapter, match="25, but the layer has 4 x 6 locations"):
        LoCA(n=25).tensors(Shape(4, 6))


@pytest.mark.parametrize("num_rows", [0, 1, 6])
def test_the_loop_is_its_reference(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    buffer = torch.randn(4, 140, generator=generator)
    buffer[:, 53:93] = torch.randint(23, (4, 40), generator=generator).float()
    buffer[:, 93:133] = torch.randint(39, (4, 40), generator=generator).float()
    layer = PackedLayer(buffer, offset=13, length=120)
    slots = torch.randint(4, (num_rows,), generator=generator)
    x = torch.randn(39, num_rows, generator=generator).T  # rows that do not lie together
    got = located_rows(x, layer, slots, 23)
    true = located_rows_reference(x.double(), layer, slots, 23)
    assert got.shape == (num_rows, 23)
    assert torch.allclose(got.double(), true, rtol=0, atol=64 * EPS)
    assert torch.allclose(
        located_rows_reference(x, layer, slots, 23).double(), true, rtol=0, atol=64 * EPS
    )


def test_adapters_of_other_locations_and_scales_share_a_bank() -> None:
    shape = Shape(4, 8)
    assert LoCA(n=20).signature(shape) == LoCA(n=20, scale=9.0).signature(shape)
    assert LoCA(n=20).signature(shape) != LoCA(n=21).signature(shape)


def test_locations_at_the_edge_of_a_wide_layer_survive_packing() -> None:
    method, shape = LoCA(n=2), Shape(3, 300_001)
    layer = {SPECTRUM: torch.ones(2), LOCATIONS: torch.tensor([[0, 2], [299_999, 300_000]])}
    packed = method.pack(layer, shape, method.basis(shape, CPU, torch.float32))
    assert packed.dtype == torch.float32
    assert packed[2:].long().tolist() == [0, 2, 299_999, 300_000]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [Shape(96, 32), Shape(45, 77), Shape(180, 384), Shape(1024, 129)])
def test_a_rows_bits_do_not_depend_on_its_neighbours(shape: Shape, threads: int) -> None:
    method = LoCA(n=300)
    bank = Bank(Layout.of({"": method}, {"": shape}), BasisCache(CPU), slots=2)
    slots = [
        bank.add(bank.pack({"": method}, {"": layer_of(method, shape, seed)})) for seed in range(5)
    ]
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(23, shape.in_, generator=generator)
    of_row = torch.tensor(slots)[torch.randint(5, (23,), generator=generator)]
    of_row[14:] = slots[3]

    def apply(start: int, stop: int, num_decode: int) -> torch.Tensor:
        segments = (Segment(num_decode, stop - start, slots[3]),) if num_decode < stop else ()
        got = bank.apply("", x[start:stop], Rows(of_row[start:stop], num_decode, segments))
        assert got is not None
        return got

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = apply(0, 23, 14)
        for row in range(14):
            assert torch.equal(apply(row, row + 1, 1)[0], whole[row])
        for start, stop in [(14, 23), (14, 17), (17, 23), (22, 23)]:
            assert torch.equal(apply(start, stop, 0), whole[start:stop])
    finally:
        torch.set_num_threads(before)


def test_the_canary_covers_it(bases: BasisCache) -> None:
    assert LoCA() in usual_methods()
    for shape in (Shape(96, 96), Shape(45, 77), Shape(1, 7)):
        assert worst_error(LoCA(n=100).fitted(shape), shape, bases) < 1e-5


def test_2048_is_right_with_two_threads(bases: BasisCache) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert worst_error(LoCA(), Shape(2048, 2048), bases) < 1e-5
    finally:
        torch.set_num_threads(before)
