"""Merged weights are golden plus delta, and golden never changes."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from adapters_core.base.spec import spec_of
from adapters_core.contract.method import Method
from adapters_core.kernels import lane_sums
from adapters_core.layers import merge
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import inject
from adapters_core.layers.merge import materialise, merged_bytes
from adapters_core.layers.merge_threads import MergeThreads
from adapters_core.layers.serving_plan import MergedGroup, ServingPlan
from adapters_core.methods import FourierFT, LoRA
from tiny_bases import TINY, random_layer, relative, tiny_llama, weights_sha256

METHODS = {"fourierft": FourierFT(n=40), "lora": LoRA(r=3)}


def everywhere(model: nn.Module, method: Method) -> tuple[dict, dict]:
    """Return methods and layers of an adapter of every linear."""
    targets = spec_of(model, "").targets
    layers = {t: random_layer(method, shape, i) for i, (t, shape) in enumerate(targets.items())}
    return dict.fromkeys(targets, method), layers


@pytest.mark.parametrize("method", list(METHODS.values()), ids=list(METHODS))
@pytest.mark.parametrize("make", list(TINY.values()), ids=list(TINY))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_is_golden_plus_delta_and_golden_stays(
    dtype: torch.dtype, make: Callable[[], nn.Module], method: Method, bases: BasisCache
) -> None:
    model = make().to(dtype)
    before = weights_sha256(model)
    methods, layers = everywhere(model, method)
    injection = inject(model)
    merged = materialise(methods, layers, injection.linears, bases)
    assert set(merged) == set(injection.linears)
    for target, weight in merged.items():
        linear = injection.linears[target]
        delta = method.delta(layers[target], linear.shape, bases.get(method, linear.shape))
        true = linear.golden().float() + delta
        assert weight.dtype == dtype
        assert weight.shape == linear.shape
        assert relative(weight, true) < torch.finfo(dtype).eps
        assert weight.untyped_storage().data_ptr() != linear.golden().untyped_storage().data_ptr()
    injection.switch.plan = ServingPlan(merged=[MergedGroup(merged, None)])
    with torch.inference_mode():
        model(torch.arange(8).view(1, 8))
    assert sum(w.numel() * w.element_size() for w in merged.values()) == merged_bytes(
        methods, injection.linears
    )
    injection.undo()
    assert weights_sha256(model) == before


def test_merging_many_times_gives_the_same_bits(bases: BasisCache) -> None:
    model = tiny_llama().to(torch.bfloat16)
    methods, layers = everywhere(model, FourierFT(n=40))
    linears = inject(model).linears
    first = materialise(methods, layers, linears, bases)
    for _ in range(5):
        again = materialise(methods, layers, linears, bases)
    assert all(torch.equal(first[target], again[target]) for target in first)


def test_chunks_give_the_same_weights(bases: BasisCache, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    methods, layers = everywhere(model, FourierFT(n=40))
    linears = inject(model).linears
    whole = materialise(methods, layers, linears, bases)
    monkeypatch.setattr(merge, "_CHUNK_CPU", 1)
    single = materialise(methods, layers, linears, bases)
    assert all(relative(single[target], whole[target]) < 1e-6 for target in whole)


def test_bits_do_not_depend_on_threads_or_on_how_rows_are_cut(
    bases: BasisCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    model = tiny_llama()
    methods, layers = everywhere(model, FourierFT(n=40))
    linears = inject(model).linears
    alone = materialise(methods, layers, linears, bases)
    taken: list[Callable[[], None]] = []
    threads = MergeThreads(lambda: True)
    run = threads.run
    monkeypatch.setattr(threads, "run", lambda parts: (taken.extend(parts), run(taken)))
    shared = materialise(methods, layers, linears, bases, threads=threads)
    monkeypatch.setattr(lane_sums, "_PART_NUMBERS", 1)
    num_parts = len(taken)
    taken.clear()
    cut = materialise(methods, layers, linears, bases, threads=threads)
    threads.close()
    assert len(taken) > num_parts > 0
    whole = {
        target: method.delta(
            layers[target], linears[target].shape, bases.get(method, linears[target].shape)
        )
        for target, method in methods.items()
    }
    for target in alone:
        assert torch.equal(shared[target], alone[target])
        assert torch.equal(cut[target], alone[target])
        assert torch.equal(linears[target].golden() + whole[target], alone[target])


def test_layers_may_have_methods_of_their_own(bases: BasisCache) -> None:
    model = tiny_llama()
    q, v, up = (
        f"model.layers.0.{n}" for n in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")
    )
    methods = {q: FourierFT(n=5), v: FourierFT(n=7), up: LoRA(r=2)}
    linears = inject(model, list(methods)).linears
    layers = {t: random_layer(m, linears[t].shape) for t, m in methods.items()}
    merged = materialise(methods, layers, linears, bases)
    for t, m in methods.items():
        delta = m.delta(layers[t], linears[t].shape, bases.get(m, linears[t].shape))
        assert relative(merged[t] - linears[t].golden(), delta) < 1e-5
