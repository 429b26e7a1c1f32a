"""WaveletFT against a slow plain sum and against PEFT's own layers and files."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import WaveFTConfig
from peft.tuners.waveft.layer import WaveFTLinear
from peft.tuners.waveft.wavelet import Wavelet
from torch import nn

import adapters_core.methods as methods
from adapters_core.adapter import Adapter
from adapters_core.base import spec_of
from adapters_core.bases import Bases
from adapters_core.canary import worst_error
from adapters_core.errors import InvalidAdapter
from adapters_core.kernels import gathered_rows, gathered_rows_reference
from adapters_core.method import PackedLayer, Rows, Shape
from adapters_core.peft_config import PeftConfig
from adapters_core.wavelets import WAVELETS, FilterBank, wavelet_bank

from .tiny_bases import TINY, change_config, peft_adapter, random_layer, relative, without_warnings

WaveletFT = methods.WaveletFT

CPU = torch.device("cpu")
EPS = torch.finfo(torch.float32).eps
KEY = "waveft_spectrum"
SHAPES = {
    "square": Shape(96, 96),
    "odd": Shape(45, 77),
    "tall": Shape(180, 60),
    "wide": Shape(48, 96),
    "prime": Shape(53, 31),
    "one_in": Shape(70, 1),
    "one_out": Shape(1, 70),
}
ROOT3 = math.sqrt(3)
#: Low-pass filters as the textbooks write them.
TEXTBOOK = {
    "db1": [1 / math.sqrt(2), 1 / math.sqrt(2)],
    "db2": [v / 4 / math.sqrt(2) for v in (1 + ROOT3, 3 + ROOT3, 3 - ROOT3, 1 - ROOT3)],
}
each_shape = pytest.mark.parametrize("shape", list(SHAPES.values()), ids=list(SHAPES))


def delta_of(method: WaveletFT, layer: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    return method.delta(layer, shape, method.basis(shape, CPU, torch.float32))


def exact(method: WaveletFT, layer: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    cells = torch.arange(shape.out * shape.in_)
    return method.cells(layer, shape, cells // shape.in_, cells % shape.in_).view(*shape)


def slow_delta(c: list[float], places: list[int], wavelet: str, shape: Shape) -> torch.Tensor:
    """Return one level of synthesis, one coefficient and one tap after the other."""
    low = TEXTBOOK[wavelet]
    taps = len(low)
    high = [(-1) ** k * low[taps - 1 - k] for k in range(taps)]
    margin = (taps - 2) // 2
    half_rows, half_cols = (math.ceil((size + taps - 2) / 2) for size in shape)
    full = torch.zeros(2 * half_rows + taps, 2 * half_cols + taps, dtype=torch.float64)
    for value, place in zip(c, places, strict=True):
        row, col = place // shape.in_ + margin, place % shape.in_ + margin
        down = high if col >= half_cols else low  # the right half is high-pass along the rows
        across = high if row >= half_rows else low
        for a in range(taps):
            for b in range(taps):
                cell = 2 * (row % half_rows) + a, 2 * (col % half_cols) + b
                full[cell] += value * down[a] * across[b]
    return full[taps - 2 :, taps - 2 :][: shape.out, : shape.in_]


@pytest.mark.parametrize("shape", [Shape(4, 6), Shape(6, 4), Shape(5, 7), Shape(4, 1)])
@pytest.mark.parametrize("wavelet", list(TEXTBOOK))
@pytest.mark.parametrize("n", [1, 4])
def test_delta_is_the_slow_sum(shape: Shape, wavelet: str, n: int) -> None:
    method = WaveletFT(n=n, scale=84.0, wavelet=wavelet)
    layer = random_layer(method, shape)
    size = shape.out * shape.in_
    places = torch.randperm(size, generator=torch.Generator().manual_seed(777))[:n].tolist()
    true = 84.0 * slow_delta(layer[KEY].tolist(), places, wavelet, shape)
    assert relative(delta_of(method, layer, shape), true) < 1e-6
    assert relative(exact(method, layer, shape), true) < 1e-13


def peft_delta(method: WaveletFT, layer: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    config = WaveFTConfig(
        n_frequency=method.n,
        scaling=method.scale,
        wavelet_family=method.wavelet,
        use_idwt=method.use_idwt,
        random_loc_seed=method.seed,
    )
    base = nn.Linear(shape.in_, shape.out, bias=False)
    with without_warnings():
        theirs = WaveFTLinear(base, "default", config, n_frequency=method.n)
    theirs.waveft_spectrum["default"].data = layer[KEY]
    return theirs.get_delta_weight("default").detach()


@each_shape
@pytest.mark.parametrize("n", [1, 60, 1000])
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_delta_is_pefts(wavelet: str, n: int, shape: Shape) -> None:
    """Few coefficients go the sparse way, 1000 of some shapes and longer filters the dense one."""
    method = WaveletFT(n=n, scale=-3.5, seed=5, wavelet=wavelet).fitted(shape)
    layer = random_layer(method, shape)
    assert relative(delta_of(method, layer, shape), peft_delta(method, layer, shape)) <= 1e-6


@each_shape
def test_delta_without_the_transform_is_pefts(shape: Shape) -> None:
    method = WaveletFT(n=50, use_idwt=False, wavelet="db3")
    layer = random_layer(method, shape)
    delta = delta_of(method, layer, shape)
    assert torch.equal(delta, peft_delta(method, layer, shape))
    assert int(delta.count_nonzero()) == 50


@each_shape
@pytest.mark.parametrize("wavelet", ["db1", "db3", "sym4", "coif1"])
def test_batch_rows_and_their_bits(wavelet: str, shape: Shape) -> None:
    method = WaveletFT(n=60, wavelet=wavelet)
    basis = method.basis(shape, CPU, torch.float32)
    layers = [random_layer(method, shape, seed) for seed in range(3)]
    packed = torch.stack([method.pack(layer, shape, basis) for layer in layers])
    bank = PackedLayer(packed, 0, method.packed_length(shape))
    slots = torch.tensor([2, 0, 1, 1, 2, 0, 0])
    x = torch.randn(7, shape.in_, generator=torch.Generator().manual_seed(1))
    got = method.apply(method.analyse(x, shape, basis), bank, Rows(slots, 7), shape, basis)
    deltas = [exact(method, layer, shape) for layer in layers]
    true = torch.stack([deltas[s] @ row.double() for s, row in zip(slots, x, strict=True)])
    assert relative(got, true) < 16 * EPS
    for t in range(7):
        one = method.analyse(x[t : t + 1], shape, basis)
        alone = method.apply(one, bank, Rows(slots[t : t + 1], 1), shape, basis)
        assert torch.equal(alone[0], got[t])


@pytest.mark.parametrize("wavelet", ["db1", "db3"])
@pytest.mark.parametrize("n", [20, 3000])
def test_gradients_are_the_atoms(wavelet: str, n: int) -> None:
    shape = Shape(45, 77)
    method = WaveletFT(n=n, wavelet=wavelet)
    layer = {KEY: torch.zeros(n, requires_grad=True)}
    probe = torch.randn(*shape, generator=torch.Generator().manual_seed(9))
    (delta_of(method, layer, shape) * probe).sum().backward()
    along = random_layer(method, shape)
    slope = float((layer[KEY].grad * along[KEY]).sum())
    assert math.isclose(slope, float((exact(method, along, shape) * probe).sum()), rel_tol=1e-4)


def test_haar_touches_four_cells_a_coefficient() -> None:
    method = WaveletFT(n=1)
    delta = delta_of(method, {KEY: torch.ones(1)}, Shape(96, 96))
    assert int(delta.count_nonzero()) == 4
    assert float(delta.abs().max()) == pytest.approx(12.5)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_filters_are_orthonormal_and_pefts(wavelet: str) -> None:
    bank = wavelet_bank(wavelet)
    both = torch.tensor([bank.low, bank.high], dtype=torch.float64)
    padded = torch.nn.functional.pad(both, (0, bank.taps))
    for shift in range(0, bank.taps, 2):
        gram = padded @ padded.roll(shift, 1).T
        true = torch.eye(2).double() if shift == 0 else torch.zeros(2, 2).double()
        assert torch.allclose(gram, true, rtol=0, atol=1e-12)
    assert sum(bank.low) == pytest.approx(math.sqrt(2), abs=1e-12)
    theirs = Wavelet(wavelet)  # whose own tables are good to 1e-11
    assert bank.low == pytest.approx(theirs.rec_lo, abs=1e-11)
    assert bank.high == pytest.approx(theirs.rec_hi, abs=1e-11)


@pytest.mark.parametrize("size", [1, 2, 7, 45, 96])
@pytest.mark.parametrize("bank", [FilterBank(), wavelet_bank("db1"), wavelet_bank("sym5")])
def test_analysis_is_the_transpose_of_synthesis(bank: FilterBank, size: int) -> None:
    synthesis = bank.synthesise(torch.eye(bank.num_atoms(size)).double(), size)  # [atoms, size]
    assert torch.allclose(bank.analyse(torch.eye(size).double()), synthesis.T)
    cells, numbers = bank.atoms(torch.arange(bank.num_atoms(size)), size)
    assert torch.allclose(torch.zeros_like(synthesis).scatter_add(1, cells, numbers), synthesis)


@pytest.mark.parametrize("num_rows", [0, 1, 6])
def test_gathered_loop_is_its_reference(num_rows: int) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = PackedLayer(torch.randn(4, 60, generator=generator), offset=13, length=40)
    x = torch.randn(num_rows, 39, generator=generator)
    slots = torch.randint(4, (num_rows,), generator=generator)
    cols = torch.randint(39, (40,), generator=generator).int()
    rows = torch.randint(23, (40,), generator=generator).int()
    got = gathered_rows(x, layer, slots, cols, rows, 23)
    true = gathered_rows_reference(x.double(), layer, slots, cols, rows, 23)
    assert got.shape == (num_rows, 23)
    assert torch.allclose(got.double(), true, rtol=0, atol=64 * EPS)


LM = {"task_type": "CAUSAL_LM", "init_weights": False}
CASES = {
    "gqa": ("llama", {"target_modules": ["q_proj", "k_proj", "v_proj"], "n_frequency": 50}),
    "longer": (
        "llama",
        {
            "target_modules": ["q_proj", "down_proj"],
            "n_frequency": 70,
            "scaling": -3.0,
            "random_loc_seed": 5,
            "wavelet_family": "sym4",
        },
    ),
    "no-transform": (
        "llama",
        {"target_modules": ["o_proj"], "n_frequency": 30, "use_idwt": False},
    ),
    "pattern": (
        "llama",
        {
            "target_modules": ["q_proj", "v_proj"],
            "n_frequency": 40,
            "n_frequency_pattern": {"layers.0.self_attn.q_proj": 11, "v_proj": 12, "proj": 13},
        },
    ),
    "proportional": (
        "llama",
        {
            "target_modules": ["q_proj", "k_proj", "up_proj"],
            "n_frequency": 40,
            "proportional_parameters": True,
        },
    ),
    "gpt2": (
        "gpt2",
        {"target_modules": ["c_attn"], "n_frequency": 45, "fan_in_fan_out": True},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_pefts_saved_adapter_is_read_unchanged(
    case: str, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    kind, options = CASES[case]
    model = TINY[kind]()
    spec = spec_of(model, kind)
    inner = peft_adapter(model, WaveFTConfig(**options, **LM), tmp_path).base_model.model
    adapter = read(tmp_path, spec)
    assert adapter.description.method == "waveletft"
    wrapped = {p for p, module in inner.named_modules() if isinstance(module, WaveFTLinear)}
    assert set(adapter.layers) == wrapped
    bases = Bases(CPU)
    for target, layer in adapter.layers.items():
        method, shape = adapter.methods[target], spec.targets[target]
        ours = method.delta(layer, shape, bases.get(method, shape))
        theirs = inner.get_submodule(target).get_delta_weight("default").detach()
        assert relative(ours, theirs) <= 1e-6
    if case == "proportional":
        assert len({method.n for method in adapter.methods.values()}) == 3


@pytest.mark.parametrize("wavelet", ["haar", "DB1", "db11", "coif4", "coif5", "", 1, None, ["db1"]])
def test_an_unknown_wavelet_is_refused_and_the_known_ones_listed(wavelet: object) -> None:
    config = PeftConfig.parse(json.dumps({"wavelet_family": wavelet}).encode())
    with pytest.raises(InvalidAdapter, match="db1, db2, .*sym10, coif1, coif2, coif3") as caught:
        WaveletFT.from_peft(config, "layer", {})
    assert caught.value.param == "wavelet_family"


def test_more_levels_are_refused_from_a_file(tmp_path: Path, read: Callable[..., Adapter]) -> None:
    config = WaveFTConfig(target_modules=["q_proj"], n_frequency=9, **LM)
    peft_adapter(TINY["llama"](), config, tmp_path)
    change_config(tmp_path, {"num_levels": 2})
    with pytest.raises(InvalidAdapter, match="num_levels = 2") as caught:
        read(tmp_path)
    assert caught.value.param == "num_levels"


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 0}, "n_frequency"),
        ({"scale": math.nan}, "scaling"),
        ({"seed": -1}, "random_loc_seed"),
        ({"seed": 2**32}, "random_loc_seed"),
        ({"wavelet": "db39"}, "wavelet_family"),
        ({"num_levels": 0}, "num_levels"),
    ],
)
def test_impossible_hyper_parameters_are_named(options: dict[str, float], param: str) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        WaveletFT(**options)
    assert caught.value.param == param


def test_more_coefficients_than_places_are_refused() -> None:
    with pytest.raises(InvalidAdapter, match="25, but the layer has 4 x 6 places"):
        WaveletFT(n=25).tensors(Shape(4, 6))


def test_what_adapters_share() -> None:
    shape, method = Shape(4, 8), WaveletFT(n=20)
    assert method.signature(shape) == WaveletFT(n=20, scale=9.0).signature(shape)
    for other in ({"seed": 1}, {"wavelet": "db2"}, {"use_idwt": False}):
        assert method.signature(shape) != WaveletFT(n=20, **other).signature(shape)
    assert method.places_digest(shape) != method.places_digest(Shape(8, 8))


@pytest.mark.parametrize("shape", [Shape(96, 96), Shape(3, 5), Shape(1, 7)])
@pytest.mark.parametrize("wavelet", ["db1", "coif3"])
def test_the_canary_finds_only_rounding(wavelet: str, shape: Shape) -> None:
    assert worst_error(WaveletFT(wavelet=wavelet).fitted(shape), shape, Bases(CPU)) < 1e-5
