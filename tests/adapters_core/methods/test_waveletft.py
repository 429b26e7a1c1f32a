"""WaveletFT against a slow plain sum and against PEFT's own layers and files."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from peft import PeftModel, WaveFTConfig
from peft.tuners.waveft.layer import WaveFTLinear
from torch import nn

import adapters_core.methods as methods
from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.contract.method import PackedLayer, Rows, Shape
from adapters_core.contract.peft_config import PeftConfig
from adapters_core.errors import InvalidAdapter
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.kernels.wavelet_filters import WAVELETS, wavelet_bank
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.canary import worst_error
from adapters_core.positions.seeded import flat_positions
from adapters_core.transforms.atoms import Touched
from tiny_bases import TINY, change_config, peft_adapter, random_layer, relative, without_warnings

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


def slow_delta(positions: torch.Tensor, wavelet: str, levels: int = 1) -> torch.Tensor:
    """Return the synthesis of `[out, in]` positions, coefficient by coefficient and tap by tap."""
    low = TEXTBOOK[wavelet]
    taps, shape = len(low), positions.shape
    high = [(-1) ** k * low[taps - 1 - k] for k in range(taps)]
    half_rows, half_cols = (math.ceil((size + taps - 2) / 2) for size in shape)
    core = torch.zeros(2 * half_rows, 2 * half_cols, dtype=torch.float64)
    margin = (taps - 2) // 2
    core[margin : margin + shape[0], margin : margin + shape[1]] = positions
    if levels > 1:
        corner = core[:half_rows, :half_cols]
        core[:half_rows, :half_cols] = slow_delta(corner.clone(), wavelet, levels - 1)
    full = torch.zeros(2 * half_rows + taps, 2 * half_cols + taps, dtype=torch.float64)
    for row, col in core.nonzero().tolist():
        down = high if col >= half_cols else low  # the right half is high-pass along the rows
        across = high if row >= half_rows else low
        for a in range(taps):
            for b in range(taps):
                cell = 2 * (row % half_rows) + a, 2 * (col % half_cols) + b
                full[cell] += core[row, col] * down[a] * across[b]
    return full[taps - 2 :, taps - 2 :][: shape[0], : shape[1]]


def placed(method: WaveletFT, layer: dict[str, torch.Tensor], shape: Shape) -> torch.Tensor:
    """Return `[out, in]`, zero but at the first n of torch's own permutation; float64."""
    order = torch.randperm(
        shape.out * shape.in_, generator=torch.Generator().manual_seed(method.seed)
    )
    flat = torch.zeros(shape.out * shape.in_, dtype=torch.float64)
    flat[order[: method.n]] = layer[KEY].double()
    return flat.view(*shape)


@pytest.mark.parametrize(
    ("shape", "levels"),
    [*((Shape(*shape), 1) for shape in ((4, 6), (6, 4), (5, 7), (4, 1))), (Shape(12, 13), 2)],
)
@pytest.mark.parametrize("wavelet", list(TEXTBOOK))
@pytest.mark.parametrize("n", [1, 4, 60])
def test_delta_is_the_slow_sum(shape: Shape, levels: int, wavelet: str, n: int) -> None:
    method = WaveletFT(n, scale=84.0, wavelet=wavelet, num_levels=levels).fitted(shape)
    assert method.num_levels == levels
    layer = random_layer(method, shape)
    true = 84.0 * slow_delta(placed(method, layer, shape), wavelet, levels)
    assert relative(delta_of(method, layer, shape), true) < 1e-6
    assert relative(exact(method, layer, shape), true) < 1e-13


def quadrants(positions: torch.Tensor, wavelet: str, levels: int) -> list[object]:
    """Return PyWavelets' list of coefficients; its cH is high-pass along the rows, as our B."""
    taps = wavelet_bank(wavelet).taps
    half_rows, half_cols = (math.ceil((size + taps - 2) / 2) for size in positions.shape)
    core = np.zeros((2 * half_rows, 2 * half_cols))
    margin = (taps - 2) // 2
    core[margin:, margin:][: positions.shape[0], : positions.shape[1]] = positions
    top, bottom = core[:half_rows], core[half_rows:]
    corner = torch.from_numpy(top[:, :half_cols])
    details = top[:, half_cols:], bottom[:, :half_cols], bottom[:, half_cols:]
    return [*(quadrants(corner, wavelet, levels - 1) if levels > 1 else [corner.numpy()]), details]


@pytest.mark.parametrize(("levels", "n"), [(1, 7), (2, 500), (3, 7), (5, 500)])
@pytest.mark.parametrize("wavelet", ["db1", "db2", "db4", "coif1"])
@each_shape
def test_delta_is_pywts(shape: Shape, wavelet: str, n: int, levels: int) -> None:
    method = WaveletFT(n=n, scale=2.0, seed=9, wavelet=wavelet, num_levels=levels).fitted(shape)
    layer = random_layer(method, shape)
    given = quadrants(placed(method, layer, shape), wavelet, method.num_levels)
    true = 2.0 * torch.from_numpy(pywt.waverec2(given, wavelet)[: shape.out, : shape.in_])
    assert relative(delta_of(method, layer, shape), true) < 8 * EPS
    assert relative(exact(method, layer, shape), true) < 1e-9  # as good as pywt's own tables


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
@pytest.mark.parametrize(
    "method",
    [
        *(WaveletFT(n=60, wavelet=wavelet) for wavelet in ("db1", "db3", "sym4", "coif1")),
        *(WaveletFT(n=250, num_levels=levels) for levels in (1, 2, 5)),
        *(WaveletFT(n=90, wavelet="db2", num_levels=levels) for levels in (2, 3)),
        WaveletFT(n=60, use_idwt=False),
    ],
    ids=repr,
)
def test_batch_rows_and_their_bits(method: WaveletFT, shape: Shape) -> None:
    method = method.fitted(shape)
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


@pytest.mark.parametrize(("wavelet", "levels"), [("db1", 1), ("db1", 4), ("db3", 1), ("db3", 3)])
@pytest.mark.parametrize("n", [5, 3000])
def test_gradients_are_the_atoms(wavelet: str, levels: int, n: int) -> None:
    shape = Shape(45, 77)
    method = WaveletFT(n=n, wavelet=wavelet, num_levels=levels)
    layer = {KEY: torch.zeros(n, requires_grad=True)}
    probe = torch.randn(*shape, generator=torch.Generator().manual_seed(9))
    (delta_of(method, layer, shape) * probe).sum().backward()
    along = random_layer(method, shape)
    slope = float((layer[KEY].grad * along[KEY]).sum())
    assert math.isclose(
        slope, float((exact(method, along, shape) * probe).sum()), rel_tol=1e-4, abs_tol=1e-4
    )


def test_haar_touches_four_cells_a_coefficient() -> None:
    method = WaveletFT(n=1)
    delta = delta_of(method, {KEY: torch.ones(1)}, Shape(96, 96))
    assert int(delta.count_nonzero()) == 4
    assert float(delta.abs().max()) == pytest.approx(12.5)


@pytest.mark.parametrize(
    "method",
    [WaveletFT(n=20), WaveletFT(n=3, wavelet="db2", num_levels=2), WaveletFT(n=9, use_idwt=False)],
    ids=repr,
)
def test_few_cells_and_dense_cores_give_one_delta(
    method: WaveletFT, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Shape(45, 77)
    layer, few = random_layer(method, shape), method.basis(shape, CPU, torch.float32)
    monkeypatch.setattr("adapters_core.transforms.wavelet_basis._SPARSE_PART", 10**6)
    dense = method.basis(shape, CPU, torch.float32)
    assert method.changed_cells(layer, shape, few) is not None
    assert method.changed_cells(layer, shape, dense) is None
    assert relative(method.delta(layer, shape, few), method.delta(layer, shape, dense)) < 4 * EPS


def test_deep_haar_touches_few_cells_a_level() -> None:
    """Three coefficients in four stand on the last level, a fourth of the rest on the next ..."""
    shape, method = Shape(1024, 1024), WaveletFT(n=1000, num_levels=3)
    basis = method.basis(shape, CPU, torch.float32)
    changed = method.changed_cells(random_layer(method, shape), shape, basis)
    assert changed is not None
    assert len(changed[0]) < (3 * 3 + 2) * 1000


def test_one_atom_as_wide_as_the_layer_is_no_list_of_cells() -> None:
    """A tiny file may name a seed whose atoms cover everything; the basis stays small."""
    shape = Shape(64, 64)
    firsts = ((seed, int(flat_positions(seed, 1, 64 * 64))) for seed in range(10**5))
    seed = next(seed for seed, position in firsts if max(divmod(position, 64)) < 2)
    few = WaveletFT(n=1, seed=seed, num_levels=3).basis(shape, CPU, torch.float32)
    assert isinstance(few.parts, Touched)
    assert len(few.parts.cells) == 8 * 8
    wide = WaveletFT(n=1, seed=seed, num_levels=6).basis(shape, CPU, torch.float32)
    assert isinstance(wide.parts, torch.Tensor)
    assert len(wide.parts) == 1


def test_rows_go_through_blocks_or_through_the_transform() -> None:
    shape = Shape(96, 96)
    few, many = WaveletFT(n=96), WaveletFT(n=97)
    assert few.basis(shape, CPU, torch.float32).blocks is not None
    assert many.basis(shape, CPU, torch.float32).blocks is None
    assert few.analysis_key(shape) == WaveletFT(n=5, use_idwt=False).analysis_key(shape)
    keys = [many.analysis_key(shape), WaveletFT(n=97, num_levels=2).analysis_key(shape)]
    assert len({few.analysis_key(shape), *keys}) == 3


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
    bases = BasisCache(CPU)
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


def test_pefts_type_has_one_level(tmp_path: Path, read: Callable[..., Adapter]) -> None:
    """PEFT would read such a file too, as another adapter."""
    config = WaveFTConfig(target_modules=["q_proj"], n_frequency=9, **LM)
    peft_adapter(TINY["llama"](), config, tmp_path)
    change_config(tmp_path, {"num_levels": 2})
    with pytest.raises(InvalidAdapter, match="num_levels = 2.* WAVELETFT") as caught:
        read(tmp_path)
    assert caught.value.param == "num_levels"
    change_config(tmp_path, {"num_levels": 1})
    one = read(tmp_path)
    change_config(tmp_path, {"num_levels": 2, "peft_type": "WAVELETFT"})
    two = read(tmp_path)
    assert {m.num_levels for m in one.methods.values()} == {1}
    assert {m.num_levels for m in two.methods.values()} == {2}


def test_files_of_more_levels_are_not_pefts(
    llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    """Layers that can hold fewer levels have fewer, by a pattern of their own."""
    targets = [t for t in llama_spec.targets if t.endswith(("q_proj", "k_proj", "down_proj"))]
    shapes = {target: llama_spec.targets[target] for target in targets}
    methods = WaveletFT(n=50, num_levels=6).of_layers(shapes)
    assert {method.num_levels for method in methods.values()} == {5, 6}
    layers = {target: random_layer(methods[target], shapes[target]) for target in targets}
    write_adapter(tmp_path, methods, layers, llama_spec)
    assert read(tmp_path).methods == methods
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "WAVELETFT"
    with without_warnings(), pytest.raises((KeyError, ValueError), match="WAVELETFT"):
        PeftModel.from_pretrained(TINY["llama"](), str(tmp_path))


def test_a_file_of_one_level_says_nothing_of_levels() -> None:
    config = WaveletFT.config_of({"a": WaveletFT(), "b": WaveletFT(n=5)})
    assert not {"num_levels", "num_levels_pattern", "peft_type"} & set(config)
    mixed = WaveletFT.config_of({"x.a": WaveletFT(), "x.b": WaveletFT(num_levels=3)})
    assert (mixed["num_levels"], mixed["num_levels_pattern"]) == (1, {"b": 3})


@pytest.mark.parametrize(
    ("changes", "param", "says"),
    [
        ({"num_levels": 7}, "num_levels", "num_levels = 7.* db1 .* 96 x 96 has at most 6"),
        ({"num_levels": 10**400}, "num_levels", "num_levels = 10+\\.\\.\\., .* at most 6"),
        ({"num_levels": 3, "wavelet_family": "coif3"}, "num_levels", "coif3 .* at most 2"),
        ({"num_levels": 0}, "num_levels", "num_levels = 0: an integer from 1"),
        ({"num_levels": -1}, "num_levels", "num_levels = -1"),
        ({"num_levels": True}, "num_levels", "True is not an integer"),
        ({"num_levels": 2.0}, "num_levels", "2.0 is not an integer"),
        ({"num_levels": "2"}, "num_levels", "'2' is not an integer"),
        ({"num_levels_pattern": {"q_proj": 0}}, "num_levels", "num_levels = 0"),
        ({"num_levels_pattern": 3}, "num_levels_pattern", "not an object"),
        ({"num_levels": 2, "use_idwt": False}, "num_levels", "without the transform"),
        ({"n_frequency": 10**15}, "n_frequency", "10+, but the layer has 96 x 96 positions"),
        ({"n_frequency": -(10**300)}, "n_frequency", "-10+\\.\\.\\.: at least 1"),
        ({"random_loc_seed": 2**32}, "random_loc_seed", "4294967296 is not in"),
        ({"random_loc_seed": -(10**300)}, "random_loc_seed", "-10+\\.\\.\\. is not in"),
        ({"random_loc_seed": 1e300}, "random_loc_seed", "not an integer"),
        ({"wavelet_family": "d" * 10**5}, "wavelet_family", "supported: db1"),
    ],
)
def test_impossible_values_in_a_file_are_named(
    changes: dict[str, object], param: str, says: str, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    config = WaveFTConfig(target_modules=["q_proj"], n_frequency=9, **LM)
    peft_adapter(TINY["llama"](), config, tmp_path)
    change_config(tmp_path, {"peft_type": "WAVELETFT"} | changes)
    with pytest.raises(InvalidAdapter, match=says) as caught:
        read(tmp_path)
    assert caught.value.param == param
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 0}, "n_frequency"),
        ({"scale": math.nan}, "scaling"),
        ({"seed": -1}, "random_loc_seed"),
        ({"seed": 2**32}, "random_loc_seed"),
        ({"wavelet": "db39"}, "wavelet_family"),
        ({"num_levels": 0}, "num_levels"),
        ({"num_levels": True}, "num_levels"),
        ({"num_levels": 1.0}, "num_levels"),
        ({"num_levels": 2, "use_idwt": False}, "num_levels"),
    ],
)
def test_impossible_hyper_parameters_are_named(options: dict[str, float], param: str) -> None:
    with pytest.raises(InvalidAdapter) as caught:
        WaveletFT(**options)
    assert caught.value.param == param


def test_more_coefficients_than_positions_are_refused() -> None:
    with pytest.raises(InvalidAdapter, match="25, but the layer has 4 x 6 positions"):
        WaveletFT(n=25).tensors(Shape(4, 6))


def test_what_adapters_share() -> None:
    shape, method = Shape(4, 8), WaveletFT(n=20)
    assert method.signature(shape) == WaveletFT(n=20, scale=9.0).signature(shape)
    for other in ({"seed": 1}, {"wavelet": "db2"}, {"use_idwt": False}, {"num_levels": 2}):
        assert method.signature(shape) != WaveletFT(n=20, **other).signature(shape)
    assert method.positions_digest(shape) != method.positions_digest(Shape(8, 8))


@pytest.mark.parametrize("shape", [Shape(96, 96), Shape(3, 5), Shape(1, 7)])
@pytest.mark.parametrize("levels", [1, 4])
@pytest.mark.parametrize("wavelet", ["db1", "coif3"])
def test_the_canary_finds_only_rounding(wavelet: str, levels: int, shape: Shape) -> None:
    method = WaveletFT(wavelet=wavelet, num_levels=levels).fitted(shape)
    assert worst_error(method, shape, BasisCache(CPU)) < 1e-5


@pytest.mark.parametrize("levels", [1, 2])
def test_float64_where_the_canary_asks_for_it(levels: int) -> None:
    shape, bases = Shape(45, 77), BasisCache(CPU)
    bases.use_float64("waveletft", shape)
    assert worst_error(WaveletFT(n=50, num_levels=levels), shape, bases) < 1e-6
