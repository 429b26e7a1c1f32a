"""Projection against plain least squares; stamps; what is told of a layer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.fft import dctn
from torch import Tensor

from adapters_core.base.spec import BaseSpec
from adapters_core.contract.method import Coefficients, Method, Shape
from adapters_core.errors import BaseMismatch, InvalidAdapter
from adapters_core.format.description import AdapterDescription
from adapters_core.format.read import Adapter, read_adapter
from adapters_core.interchange.layer_facts import largest_singular_value, layer_facts
from adapters_core.interchange.project import Projection, Target, project
from adapters_core.interchange.stamp import stamped, unstamped
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import C3A, FourierFT, LoCA, LoRA, SHiRA, WaveletFT
from adapters_core.positions.seeded import flat_positions, positions_digest
from made import CPU, random_coefficients
from tiny_bases import relative

SHAPES = [Shape(12, 18), Shape(13, 9), Shape(24, 5), Shape(1, 7)]
SPECTRAL: list[Method] = [
    FourierFT(n=5, scale=3.0, seed=4),
    FourierFT(n=1000, scale=150.0),  # every position: each pair stands twice
    LoCA(n=5, scale=0.7),
    LoCA(n=1000),
    WaveletFT(n=5, seed=2),
    WaveletFT(n=5, wavelet="db3", scale=2.0),
    WaveletFT(n=4, wavelet="coif1", seed=1),
    WaveletFT(n=5, num_levels=2),
]
SPECTRUM = {
    "fourierft": "fourierft_spectrum",
    "loca": "loca_spectrum",
    "waveletft": "waveft_spectrum",
}


def adapter_of(layers: dict[str, tuple[Method, Shape, Coefficients]]) -> Adapter:
    description = AdapterDescription("", "", {}, "", "", False, tuple(layers), 0, 0)
    methods = {path: method for path, (method, _, _) in layers.items()}
    return Adapter(description, methods, {path: layer for path, (_, _, layer) in layers.items()})


def random_one(method: Method, shape: Shape, seed: int = 0) -> tuple[Method, Shape, Coefficients]:
    """Return the method fitted to the shape with coefficients all random."""
    method = method.fitted(shape)
    basis = method.basis(shape, CPU, torch.float32)
    return method, shape, random_coefficients(method, shape, basis, seed)


def projected(
    layers: dict[str, tuple[Method, Shape, Coefficients]], *onto: Method, is_cut: bool = True
) -> Projection:
    shapes = {path: shape for path, (_, shape, _) in layers.items()}
    return project(adapter_of(layers), shapes, BasisCache(CPU), Target(onto, is_cut))


def delta_of(method: Method, shape: Shape, layer: Coefficients) -> Tensor:
    return method.delta(layer, shape, method.basis(shape, CPU, torch.float64)).double()


def dense_atoms(method: Any, shape: Shape, layer: Coefficients) -> np.ndarray:
    """Return the deltas of unit coefficients `[out * in_, n]`, by the defining sum."""
    grid = torch.cartesian_prod(torch.arange(shape.out), torch.arange(shape.in_))
    atoms = []
    for unit in torch.eye(method.n):
        ones = dict(layer) | {SPECTRUM[method.name]: unit}
        atoms.append(method.cells(ones, shape, grid[:, 0], grid[:, 1]).numpy())
    return np.stack(atoms, axis=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", SPECTRAL, ids=str)
def test_an_update_of_the_methods_own_comes_back(method: Method, shape: Shape) -> None:
    made = random_one(method, shape)
    done = projected({"layer": made}, made[0])
    assert done.methods["layer"] == made[0]
    again = delta_of(done.methods["layer"], shape, done.layers["layer"])
    assert relative(again, delta_of(*made)) <= 1e-5
    assert done.kept["layer"].share == pytest.approx(1, abs=1e-9)
    assert done.total.share == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("shape", [Shape(8, 6), Shape(7, 9)])
@pytest.mark.parametrize(
    "method",
    [
        FourierFT(n=11, scale=3.0, seed=4),
        FourierFT(n=40, scale=3.0, seed=4),
        WaveletFT(n=11, scale=2.0),
        WaveletFT(n=30, wavelet="db2"),
        WaveletFT(n=40, wavelet="sym4"),
    ],
    ids=str,
)
def test_seeded_projection_is_the_least_squares_solution(method: Any, shape: Shape) -> None:
    source = random_one(LoRA(r=3), shape)
    delta = delta_of(*source)
    done = projected({"layer": source}, method, is_cut=False)
    atoms = dense_atoms(method, shape, done.layers["layer"])
    best = np.linalg.lstsq(atoms, delta.numpy().ravel(), rcond=1e-7)[0]
    nearest = torch.from_numpy(atoms @ best).view(shape)
    got = delta_of(method, shape, done.layers["layer"])
    assert float((got - nearest).norm()) <= 2e-5 * float(delta.norm())
    kept = 1 - float((delta - nearest).square().sum() / delta.square().sum())
    assert done.kept["layer"].share == pytest.approx(kept, abs=1e-6)


def test_doubled_positions_share_their_coefficient() -> None:
    """The solution of smallest norm, as numpy's."""
    shape, method = Shape(5, 4), FourierFT(n=20, scale=3.0)
    source = random_one(LoRA(r=2), shape)
    done = projected({"layer": source}, method)
    atoms = dense_atoms(method, shape, done.layers["layer"])
    best = np.linalg.lstsq(atoms, delta_of(*source).numpy().ravel(), rcond=1e-10)[0]
    np.testing.assert_allclose(done.layers["layer"]["fourierft_spectrum"], best, atol=1e-5)


@pytest.mark.parametrize("shape", [Shape(20, 31), Shape(9, 300)])
def test_loca_keeps_the_largest_of_scipys_cosines(shape: Shape) -> None:
    source = random_one(LoRA(r=3), shape)
    n, scale = 17, 0.25
    done = projected({"layer": source}, LoCA(n=n, scale=scale))
    true = dctn(delta_of(*source).numpy(), norm="ortho")
    order = np.argsort(-np.abs(true).ravel())[:n]
    rows, cols = done.layers["layer"]["loca_locations"].numpy()
    assert set(rows * shape.in_ + cols) == set(order)
    values = scale * done.layers["layer"]["loca_spectrum"].numpy()
    np.testing.assert_allclose(values, true[rows, cols], rtol=1e-5)
    kept = np.square(true.ravel()[order]).sum() / np.square(true).sum()
    assert done.kept["layer"].share == pytest.approx(kept, rel=1e-6)
    done.methods["layer"].check(done.layers["layer"], shape)


@pytest.mark.parametrize("method", [SPECTRAL[0], SPECTRAL[2], SPECTRAL[5]], ids=str)
def test_kept_energy_is_one_minus_the_residuals(method: Method) -> None:
    shapes = {"a": Shape(12, 18), "b": Shape(13, 9)}
    sources = {path: random_one(LoRA(r=2), shape, seed=1) for path, shape in shapes.items()}
    done = projected(sources, method)
    left = whole = 0.0
    for path, source in sources.items():
        got = delta_of(done.methods[path], shapes[path], done.layers[path])
        residual = float((delta_of(*source) - got).square().sum())
        energy = float(delta_of(*source).square().sum())
        assert done.kept[path].share == pytest.approx(1 - residual / energy, abs=1e-6)
        left, whole = left + residual, whole + energy
    assert done.total.share == pytest.approx(1 - left / whole, abs=1e-6)
    assert 0 < done.total.share < 0.9


def test_the_best_seed_of_several_is_kept() -> None:
    sources = {path: random_one(LoRA(r=2), Shape(16, 12), seed=s) for s, path in enumerate("ab")}
    tried = [FourierFT(n=10, seed=seed) for seed in range(6)]
    alone = [projected(sources, method).total.kept for method in tried]
    together = projected(sources, *tried)
    assert together.total.kept == pytest.approx(max(alone))
    assert together.methods["a"] == tried[alone.index(max(alone))]
    assert min(alone) < 0.9 * max(alone)


@pytest.mark.parametrize(
    "source", [LoRA(r=2), C3A(block_size=3), SHiRA(r=1), WaveletFT(n=9), LoCA(n=9)], ids=str
)
def test_every_kind_of_source_is_projected(source: Method) -> None:
    made = random_one(source, Shape(12, 18))
    done = projected({"layer": made}, LoCA(n=216))
    got = delta_of(done.methods["layer"], made[1], done.layers["layer"])
    assert relative(got, delta_of(*made)) <= 1e-5


def test_n_is_cut_only_where_nobody_asked_for_it() -> None:
    sources = {
        "wide": random_one(LoRA(r=2), Shape(12, 18)),
        "tiny": random_one(LoRA(r=1), Shape(3, 4)),
    }
    done = projected(sources, FourierFT(n=50))
    methods: dict[str, Any] = dict(done.methods)
    assert (methods["wide"].n, methods["tiny"].n) == (50, 12)
    with pytest.raises(InvalidAdapter, match="n_frequency = 50, but the layer has 3 x 4 positions"):
        projected(sources, FourierFT(n=50), is_cut=False)


def test_what_has_no_fit_is_refused_before_anything_is_computed() -> None:
    unreadable = {"layer": (LoRA(r=1), Shape(4, 4), {})}
    for method, reason in [
        (LoRA(r=2), "nothing is projected onto lora; onto fourierft, loca, waveletft"),
        (FourierFT(n=3, scale=0.0), "scale = 0"),
        (LoCA(n=3, scale=0.0), "scale = 0"),
        (LoCA(n=17), "n_frequency = 17"),
    ]:
        with pytest.raises(InvalidAdapter, match=reason):
            projected(unreadable, method, is_cut=False)


@pytest.mark.parametrize("method", [SPECTRAL[0], SPECTRAL[2], SPECTRAL[5]], ids=str)
def test_a_zero_layer_stays_zero_and_is_kept_whole(method: Method) -> None:
    shape = Shape(12, 18)
    lora = LoRA(r=2)
    zero = (lora, shape, lora.init(shape, torch.Generator()))
    done = projected({"zero": zero, "other": random_one(lora, shape)}, method)
    assert not delta_of(done.methods["zero"], shape, done.layers["zero"]).any()
    assert done.kept["zero"].share == 1
    assert done.total.energy == done.kept["other"].energy


# Stamps.


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.half() for key, tensor in tensors.items()}


@pytest.mark.parametrize("folder", ["fourierft_folder", "lora_folder"])
@pytest.mark.parametrize("change", [lambda tensors: tensors, halved], ids=["float32", "half"])
def test_stamp_and_back_leaves_the_tensors_and_pefts_metadata(
    folder: str, change: Any, request: pytest.FixtureRequest, llama_spec: BaseSpec
) -> None:
    path: Path = request.getfixturevalue(folder)
    file, config = path / "adapter_model.safetensors", (path / "adapter_config.json").read_bytes()
    tensors = change(load_file(file))
    save_file(tensors, file, metadata={"format": "pt", "other": "kept"})
    before = file.read_bytes()
    adapter = read_adapter(file, config, llama_spec)
    assert not adapter.description.base_verified
    file.write_bytes(stamped(before, adapter, llama_spec))
    again = read_adapter(file, config, llama_spec)
    assert again.description.base_verified
    assert header_of(file.read_bytes())["__metadata__"]["other"] == "kept"
    file.write_bytes(unstamped(file.read_bytes()))
    plain = load_file(file)
    assert plain.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert plain[key].dtype == tensor.dtype
        assert torch.equal(plain[key], tensor)
    assert header_of(file.read_bytes())["__metadata__"] == {"format": "pt", "other": "kept"}
    assert unstamped(file.read_bytes()) == file.read_bytes()


def test_a_stamp_pins_base_and_positions(
    fourierft_folder: Path, llama_spec: BaseSpec, read: Callable[..., Adapter]
) -> None:
    file = fourierft_folder / "adapter_model.safetensors"
    adapter = read(fourierft_folder)
    file.write_bytes(stamped(file.read_bytes(), adapter, llama_spec))
    own = json.loads(header_of(file.read_bytes())["__metadata__"]["overtone"])
    digest = positions_digest(flat_positions(777, 30, 96 * 96))
    assert own["places"]["96x96"] == digest
    other = BaseSpec("other", "sha256:0", llama_spec.targets)
    with pytest.raises(BaseMismatch):
        read(fourierft_folder, other)


def header_of(file: bytes) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(file[8 : 8 + int.from_bytes(file[:8], "little")])
    return header


# Facts.


def test_facts_of_a_layer_are_those_of_its_update() -> None:
    made = random_one(LoRA(r=3), Shape(20, 30))
    delta = delta_of(*made)
    weight = torch.randn(20, 30, generator=torch.Generator().manual_seed(1))
    facts = layer_facts(made[0], made[2], made[1], delta.float(), weight)
    values = np.linalg.svd(delta.numpy(), compute_uv=False)
    assert facts.delta_norm == pytest.approx(np.sqrt(np.square(values).sum()), rel=1e-5)
    assert facts.relative_norm == pytest.approx(facts.delta_norm / float(weight.norm()), rel=1e-5)
    assert facts.stable_rank == pytest.approx(np.square(values).sum() / values[0] ** 2, rel=1e-3)
    assert facts.num_coefficients == 3 * 50
    assert facts.places is None
    squares = sum(float(tensor.square().sum()) for tensor in made[2].values())
    assert facts.energy == pytest.approx(squares, rel=1e-5)


@pytest.mark.parametrize("shape", [(40, 40), (3, 90), (200, 64), (1, 1)])
def test_largest_singular_value_is_found_from_below(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    true = float(torch.linalg.matrix_norm(matrix.double(), ord=2))
    assert true * 0.995 <= largest_singular_value(matrix) <= true * (1 + 1e-5)


def test_rank_one_has_stable_rank_one_and_zero_has_none() -> None:
    shape = Shape(6, 8)
    one = random_one(LoRA(r=1), shape)
    facts = layer_facts(one[0], one[2], shape, delta_of(*one).float(), torch.zeros(6, 8))
    assert facts.stable_rank == pytest.approx(1, abs=1e-5)
    assert facts.relative_norm == 0
    zero = layer_facts(one[0], one[2], shape, torch.zeros(6, 8), torch.ones(6, 8))
    assert (zero.stable_rank, zero.delta_norm, zero.relative_norm) == (0, 0, 0)


def test_positions_are_counted_wherever_they_come_from() -> None:
    shape = Shape(6, 8)
    flat = flat_positions(777, 5, 48)
    seeded = random_one(FourierFT(n=5), shape)
    held = (LoCA(n=5), shape, {"loca_spectrum": torch.ones(5), "loca_locations": cells(flat)})
    doubled = cells(torch.tensor([1, 1, 2, 3, 3]))
    twice = (LoCA(n=5), shape, {"loca_spectrum": torch.ones(5), "loca_locations": doubled})
    found = [
        layer_facts(m, c, s, torch.ones(6, 8), torch.ones(6, 8))
        for m, s, c in (seeded, held, twice)
    ]
    assert [facts.num_coefficients for facts in found] == [5, 5, 5]
    first, second, third = (facts.places for facts in found)
    assert first == second
    assert first
    assert (first.n, first.distinct, first.digest) == (5, 5, positions_digest(flat))
    assert third
    assert (third.n, third.distinct) == (5, 3)


def cells(flat: Tensor) -> Tensor:
    return torch.stack([flat // 8, flat % 8]).int()
