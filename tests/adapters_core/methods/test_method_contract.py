"""What every registered method promises; a new method is found by its registration."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, PeftType

import adapters_core.methods  # noqa: F401  (registers the methods)
from adapters_core.base.spec import BaseSpec, weights_of
from adapters_core.contract.method import Method, Rows, Segment, Shape
from adapters_core.contract.method_registry import registered
from adapters_core.format.read import Adapter
from adapters_core.format.write import write_adapter
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from made import TOY_PATH, random_adapter, random_coefficients, toy_bases
from tiny_bases import relative, tiny_llama, without_warnings

CPU = torch.device("cpu")
SHAPES = {
    "square": Shape(96, 96),
    "odd": Shape(45, 77),
    "tall": Shape(180, 60),
    "wide": Shape(48, 96),
    "prime": Shape(53, 31),
    "one_in": Shape(70, 1),
    "one_out": Shape(1, 70),
}
#: Hyper-parameters of each method for these small shapes; a method not named here has its defaults.
SMALL = {
    "c3a": [{"block_size": 1}, {"block_size": 16}, {"block_size": 32}],
    "clora": [
        {"r": 2, "num_spaces": 3},
        {"r": 1, "num_spaces": 1, "scaling": -3.5},
        {"r": 2, "num_spaces": 2, "diagonal": True},
    ],
    "dora": [{"r": 3}, {"r": 2, "alpha": 3.0, "rslora": True}],
    "fourierft": [{"n": 60}, {"n": 70, "scale": -3.5, "seed": 5}, {"n": 1}],
    "frod": [
        {"sparse_rate": 0.03},
        {"sparse_rate": 1e-4, "seed": 7, "saved": True},
        {"sparse_rate": 0.0},
    ],
    "loca": [{"n": 60}, {"n": 1, "scale": -3.5}],
    "lora": [{"r": 3}],
    "shira": [{"r": 1}, {"r": 2}],
    "tinylora": [{"r": 2, "u": 5}, {"r": 3, "u": 4, "tying": 1.0, "save": False}],
    "vera": [{"r": 3}, {"r": 5, "seed": 4, "save": True}],
    "waveletft": [
        {"n": 60},
        {"n": 60, "wavelet": "db3"},
        {"n": 50, "use_idwt": False},
        {"n": 70, "num_levels": 2},
        {"n": 1500, "num_levels": 3, "wavelet": "db2"},
    ],
}
OTHER_PATH = "model.layers.0.mlp.other"
EPS = torch.finfo(torch.float32).eps


def variants() -> Iterator[pytest.ParameterSet]:
    for name, kind in registered().items():
        for options in SMALL.get(name, [{}]):
            text = "-".join(f"{key}={value}" for key, value in options.items())
            yield pytest.param(kind(**options), id=f"{name}-{text}")


each_method = pytest.mark.parametrize("method", list(variants()))
each_shape = pytest.mark.parametrize("shape", list(SHAPES.values()), ids=list(SHAPES))


def at(method: Method, shape: Shape) -> Method:
    """Return the method as a layer of this shape has it."""
    return method.of_layers({TOY_PATH: shape})[TOY_PATH]


def basis_of(method: Method, shape: Shape, dtype: torch.dtype = torch.float32) -> object:
    bases = toy_bases({TOY_PATH: shape})
    if dtype == torch.float64:
        bases.use_float64(method.name, shape)
    return bases.get(method, shape, TOY_PATH)


def random_layer(method: Method, shape: Shape, seed: int = 0) -> dict[str, torch.Tensor]:
    return random_coefficients(method, shape, basis_of(method, shape), seed)


def trained(
    method: Method, layer: dict[str, torch.Tensor], shape: Shape
) -> dict[str, torch.Tensor]:
    """Return the coefficients that training moves."""
    specs = method.tensors(shape)
    return {n: t for n, t in layer.items() if specs[n].floating and specs[n].trained}


def all_cells(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    flat = torch.arange(shape.out * shape.in_)
    return flat // shape.in_, flat % shape.in_


@each_shape
@each_method
def test_fresh_coefficients_change_nothing(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    fresh = method.init(shape, torch.Generator().manual_seed(0), basis_of(method, shape))
    delta = method.delta(fresh, shape, basis_of(method, shape))
    assert delta.shape == (shape.out, shape.in_)
    assert delta.dtype == torch.float32
    assert not delta.any()
    assert method.is_zero(fresh) or method.needs_base  # only the base knows what is zero there


@each_shape
@each_method
def test_init_is_what_the_file_holds(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    fresh = method.init(shape, torch.Generator().manual_seed(0), basis_of(method, shape))
    specs = method.tensors(shape)
    assert {name: tuple(tensor.shape) for name, tensor in fresh.items()} == {
        name: spec.shape for name, spec in specs.items()
    }
    assert all(fresh[name].dtype == torch.float32 for name in specs if specs[name].floating)


@each_method
def test_init_depends_on_nothing_but_its_generator(method: Method) -> None:
    shape = SHAPES["odd"]
    method = at(method, shape)
    first = method.init(shape, torch.Generator().manual_seed(3), basis_of(method, shape))
    again = method.init(shape, torch.Generator().manual_seed(3), basis_of(method, shape))
    assert all(torch.equal(first[name], again[name]) for name in first)


@each_shape
@each_method
def test_delta_is_the_defining_sum(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    true = method.cells(layer, shape, *all_cells(shape), basis_of(method, shape)).view(
        shape.out, shape.in_
    )
    assert true.dtype == torch.float64
    got = method.delta(layer, shape, basis_of(method, shape))
    assert relative(got, true) < 8 * EPS
    assert not method.is_zero(layer)


@each_shape
@each_method
def test_float64_basis_gives_the_same_delta(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    true = method.cells(layer, shape, *all_cells(shape), basis_of(method, shape)).view(
        shape.out, shape.in_
    )
    got = method.delta(layer, shape, basis_of(method, shape, torch.float64))
    assert relative(got, true) < 2 * EPS


@each_shape
@each_method
def test_delta_many_is_each_delta(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    basis = basis_of(method, shape)
    layers = [random_layer(method, shape, seed) for seed in range(3)]
    many = method.delta_many(layers, shape, basis)
    assert many.shape == (3, shape.out, shape.in_)
    for layer, got in zip(layers, many, strict=True):
        assert relative(got, method.delta(layer, shape, basis)) < 4 * EPS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_shape
@each_method
def test_merge_many_writes_golden_plus_delta_rounded_once(
    method: Method, shape: Shape, dtype: torch.dtype
) -> None:
    method = at(method, shape)
    basis = basis_of(method, shape)
    layers = [random_layer(method, shape, seed) for seed in range(2)]
    generator = torch.Generator().manual_seed(5)
    golden = [torch.randn(shape, generator=generator).to(dtype) for _ in layers]
    golden[1] = golden[1].T.contiguous().T  # as GPT-2's Conv1D stores it
    before = [weight.clone() for weight in golden]
    merged = [torch.full(shape, torch.nan, dtype=dtype) for _ in golden]  # as if it were old
    method.merge_many(layers, golden, merged, shape, basis)
    for layer, weight, got in zip(layers, golden, merged, strict=True):
        want = weight.float() + method.delta(layer, shape, basis)
        assert got.dtype == dtype
        assert torch.allclose(got.float(), want, rtol=torch.finfo(dtype).eps, atol=1e-5)
    assert all(torch.equal(weight, kept) for weight, kept in zip(golden, before, strict=True))


@each_shape
@each_method
def test_gradients_reach_every_tensor(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    floats = {name: t.requires_grad_() for name, t in trained(method, layer, shape).items()}
    probe = torch.randn(shape.out, shape.in_, generator=torch.Generator().manual_seed(9))
    (method.delta(layer, shape, basis_of(method, shape)) * probe).sum().backward()
    for name, tensor in floats.items():
        assert tensor.grad is not None, name
        assert bool(tensor.grad.any()), name


@each_method
def test_gradients_are_the_differences(method: Method) -> None:
    """The gradient along a random direction against a central difference of the float64 sum."""
    shape = SHAPES["odd"]
    method = at(method, shape)
    layer = random_layer(method, shape)
    floats = {name: t.requires_grad_() for name, t in trained(method, layer, shape).items()}
    probe = torch.randn(shape.out, shape.in_, generator=torch.Generator().manual_seed(9))
    (method.delta(layer, shape, basis_of(method, shape)) * probe).sum().backward()
    step = trained(method, random_layer(method, shape, seed=10), shape)
    cells, basis = all_cells(shape), basis_of(method, shape)

    def loss(along: float) -> float:
        moved = {name: t.detach().double() + along * step[name] for name, t in floats.items()}
        return float(method.cells(layer | moved, shape, *cells, basis) @ probe.reshape(-1).double())

    slope = sum(float((floats[name].grad * step[name]).sum()) for name in floats)
    assert math.isclose(slope, (loss(1e-4) - loss(-1e-4)) / 2e-4, rel_tol=1e-4)


@each_shape
@each_method
def test_twice_gives_the_same_bits(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    first = method.delta(layer, shape, basis_of(method, shape))
    assert torch.equal(first, method.delta(layer, shape, basis_of(method, shape)))


@each_shape
@each_method
def test_delta_of_half_precision_coefficients(method: Method, shape: Shape) -> None:
    method = at(method, shape)
    layer = random_layer(method, shape)
    half = layer | {name: t.to(torch.bfloat16) for name, t in trained(method, layer, shape).items()}
    full = layer | {name: t.float() for name, t in trained(method, half, shape).items()}
    basis = basis_of(method, shape)
    got = method.delta(half, shape, basis)
    assert got.dtype == torch.float32
    assert relative(got, method.delta(full, shape, basis)) < 4 * EPS


class Batch:
    """A bank of one layer with `num_adapters` adapters beside another layer, and their deltas."""

    def __init__(self, method: Method, shape: Shape, num_adapters: int = 3) -> None:
        # A layer before ours, so that an offset that is forgotten shows.
        shapes = {OTHER_PATH: SHAPES["square"], TOY_PATH: shape}
        bases = toy_bases(shapes)
        made = [random_adapter(method, shapes, bases, seed) for seed in range(num_adapters)]
        methods = made[0][0]
        self.shape = shape
        self.bank = Bank(Layout.of(methods, shapes), bases, slots=2, layers=made[0][1])
        self.slots = [self.bank.add(self.bank.pack(*one)) for one in made]
        basis = bases.get(methods[TOY_PATH], shape, TOY_PATH)
        self.deltas = {
            slot: methods[TOY_PATH].delta(layers[TOY_PATH], shape, basis)
            for slot, (_, layers) in zip(self.slots, made, strict=True)
        }

    def apply(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        update = self.bank.apply(TOY_PATH, x, rows)
        assert update is not None
        return update

    def true(self, x: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [row.double() @ self.deltas[int(s)].double().T for row, s in zip(x, slots, strict=True)]
        )


def rows_of(decode: list[int], prompts: list[tuple[int, int]]) -> Rows:
    """Return rows with these decode slots, then prompts of (slot, length)."""
    slots, segments = list(decode), []
    for slot, length in prompts:
        segments.append(Segment(len(slots), len(slots) + length, slot))
        slots += [slot] * length
    return Rows(torch.tensor(slots, dtype=torch.int64), len(decode), tuple(segments))


@each_shape
@each_method
def test_mixed_batch_gives_each_row_its_own_delta(method: Method, shape: Shape) -> None:
    batch = Batch(method, shape)
    a, b, c = batch.slots
    rows = rows_of([a, c, b, c, a], [(b, 5), (a, 1), (c, 6)])
    x = torch.randn(17, shape.in_, generator=torch.Generator().manual_seed(2))
    got = batch.apply(x, rows)
    assert got.dtype == torch.float32
    assert relative(got, batch.true(x, rows.slots)) < 16 * EPS


@pytest.mark.parametrize("kind", list(registered().values()), ids=list(registered()))
def test_what_a_signature_leaves_out_is_each_adapters_own(kind: type[Method]) -> None:
    """One bank, two adapters that differ in scale alone: the bank was made for the first."""
    weak = kind(**SMALL.get(kind.name, [{}])[0])
    fields = {field.name for field in dataclasses.fields(kind)}
    scale = next((n for n in ("scale", "scaling", "alpha") if n in fields), None)
    if scale is None:
        pytest.skip(f"{kind.name} has no scale")
    strong = dataclasses.replace(weak, **{scale: 3 * getattr(weak, scale)})
    shapes = {TOY_PATH: SHAPES["odd"]}
    bases = toy_bases(shapes)
    methods, layers = random_adapter(weak, shapes, bases, 0)
    bank = Bank(Layout.of(methods, shapes), bases, layers=layers)
    others = strong.of_layers(shapes)
    if Layout.of(others, shapes).key != bank.layout.key:
        return  # they never meet in one bank
    slots = torch.tensor([bank.add(bank.pack(m, layers)) for m in (methods, others)])
    x = torch.randn(1, 77, generator=torch.Generator().manual_seed(2)).expand(2, 77)
    got = bank.apply(TOY_PATH, x, Rows(slots, 2))
    assert got is not None
    for row, method in zip(got, (methods, others), strict=True):
        own = method[TOY_PATH]
        basis = bases.get(own, shapes[TOY_PATH], TOY_PATH, layers[TOY_PATH])
        delta = own.delta(layers[TOY_PATH], shapes[TOY_PATH], basis)
        assert relative(row, delta.double() @ x[0].double()) < 16 * EPS


@each_method
def test_half_precision_input(method: Method) -> None:
    batch = Batch(method, SHAPES["odd"])
    rows = rows_of(batch.slots, [(batch.slots[1], 5)])
    x = torch.randn(8, 77, generator=torch.Generator().manual_seed(2))
    for dtype in (torch.bfloat16, torch.float16):
        got = batch.apply(x.to(dtype), rows)
        assert got.dtype == dtype
        assert relative(got, batch.true(x.to(dtype), rows.slots)) < 4 * torch.finfo(dtype).eps


@each_method
def test_a_layer_the_adapter_does_not_have_gets_nothing(method: Method) -> None:
    batch = Batch(method, SHAPES["odd"])
    assert batch.bank.apply("absent", torch.ones(1, 77), rows_of([0], [])) is None


patterns = st.tuples(
    st.lists(st.integers(0, 2), max_size=9),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), max_size=4),
).filter(lambda pattern: pattern[0] or pattern[1])


@pytest.mark.parametrize("kind", list(registered().values()), ids=list(registered()))
@settings(max_examples=40, deadline=None)
@given(pattern=patterns)
def test_a_rows_bits_do_not_depend_on_its_neighbours(
    kind: type[Method], pattern: tuple[list[int], list[tuple[int, int]]]
) -> None:
    method = kind(**SMALL.get(kind.name, [{}])[0])
    batch = _shared_batch(method)
    slots = batch.slots
    decode, prompts = pattern
    rows = rows_of([slots[i] for i in decode], [(slots[i], length) for i, length in prompts])
    x = torch.randn(len(rows.slots), batch.shape.in_, generator=torch.Generator().manual_seed(4))
    got = batch.apply(x, rows)
    if got.any():
        assert relative(got, batch.true(x, rows.slots)) < 16 * EPS
    for t, slot in enumerate(rows.slots[: rows.num_decode].tolist()):
        assert torch.equal(batch.apply(x[t : t + 1], rows_of([slot], []))[0], got[t])
    for segment in rows.segments:
        part = slice(segment.start, segment.stop)
        alone = rows_of([], [(segment.slot, segment.stop - segment.start)])
        assert torch.equal(batch.apply(x[part], alone), got[part])


@each_method
@pytest.mark.parametrize("threads", [1, 2])
def test_a_prompts_bits_do_not_depend_on_how_it_is_cut(method: Method, threads: int) -> None:
    """Prefill may come in chunks of any length."""
    batch = Batch(method, Shape(180, 384), num_adapters=1)
    slot = batch.slots[0]
    x = torch.randn(19, 384, generator=torch.Generator().manual_seed(4))
    torch.set_num_threads(threads)  # the module's fixture puts it back
    try:
        whole = batch.apply(x, rows_of([], [(slot, 19)]))
        for start, stop in [(0, 1), (0, 2), (0, 7), (3, 9), (5, 18), (17, 19), (18, 19)]:
            part = batch.apply(x[start:stop], rows_of([], [(slot, stop - start)]))
            assert torch.equal(part, whole[start:stop])
    finally:
        torch.set_num_threads(1)


_BATCHES: dict[Method, Batch] = {}


def _shared_batch(method: Method) -> Batch:
    if method not in _BATCHES:
        _BATCHES[method] = Batch(method, SHAPES["odd"])
    return _BATCHES[method]


def targets_of(spec: BaseSpec, name: str) -> list[str]:
    return [target for target in spec.targets if target.endswith(name)]


def written(
    method: Method, spec: BaseSpec, folder: Path
) -> tuple[dict[str, Method], dict[str, dict[str, torch.Tensor]], BasisCache]:
    """Return what was written to `folder`: an adapter of q and v of a tiny Llama."""
    bases = BasisCache(CPU, weights_of(tiny_llama(), spec))
    targets = [t for t in spec.targets if t.endswith(("q_proj", "v_proj"))]
    shapes = {target: spec.targets[target] for target in targets}
    methods, layers = random_adapter(method, shapes, bases, 1)
    write_adapter(folder, methods, layers, spec)
    return methods, layers, bases


@each_method
def test_file_round_trip(
    method: Method, llama_spec: BaseSpec, tmp_path: Path, read: Callable[..., Adapter]
) -> None:
    methods, layers, bases = written(method, llama_spec, tmp_path)
    adapter = read(tmp_path)
    bases.check(adapter.methods, adapter.layers)
    assert adapter.description.base_verified
    assert adapter.description.method == method.name
    assert set(adapter.layers) == set(layers)
    for target, layer in layers.items():
        assert all(torch.equal(adapter.layers[target][name], layer[name]) for name in layer)
        shape, theirs = llama_spec.targets[target], adapter.methods[target]
        basis = bases.get(theirs, shape, target, adapter.layers[target])
        want = methods[target].delta(layer, shape, bases.get(methods[target], shape, target))
        assert torch.equal(theirs.delta(adapter.layers[target], shape, basis), want)
    numbers = {id(t): t.numel() for layer in layers.values() for t in layer.values()}
    assert adapter.description.num_coefficients == sum(numbers.values())
    assert adapter.description.size_bytes == (tmp_path / "adapter_model.safetensors").stat().st_size


@each_method
def test_writing_leaves_nothing_else(method: Method, llama_spec: BaseSpec, tmp_path: Path) -> None:
    written(method, llama_spec, tmp_path / "new" / "folder")
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json"}


def peft_delta(module: torch.nn.Module) -> torch.Tensor:
    """Return what PEFT adds to the weight; of DoRA `get_delta_weight` gives the LoRA alone."""
    with without_warnings():  # torch's, of SHiRA's sparse delta
        delta = module.get_delta_weight("default").to_dense().detach()
    if not getattr(module, "use_dora", {}).get("default"):
        return delta
    golden = module.get_base_layer().weight.detach().clone()
    module.merge()
    return module.get_base_layer().weight.detach() - golden


@each_method
def test_peft_loads_what_we_wrote(method: Method, llama_spec: BaseSpec, tmp_path: Path) -> None:
    methods, layers, bases = written(method, llama_spec, tmp_path)
    peft_type = json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"]
    if peft_type not in PeftType.__members__:
        pytest.skip(f"PEFT has no {peft_type}")
    with without_warnings():
        peft_model = PeftModel.from_pretrained(tiny_llama(), str(tmp_path))
    for target, layer in layers.items():
        shape = llama_spec.targets[target]
        module = peft_model.base_model.model.get_submodule(target)
        theirs = peft_delta(module)
        basis = bases.get(methods[target], shape, target, layer)
        ours = methods[target].delta(layer, shape, basis)
        assert relative(ours, theirs) <= 1e-6
