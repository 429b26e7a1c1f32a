"""What is counted at Llama-3.1-8B's shape: the base without values, its steps, merges and loads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.contract.method_registry import registered
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.merge import materialise
from adapters_core.methods import FourierFT, LoCA, LoRA, WaveletFT
from bench.lib.bases import targets_of
from bench.lib.counting import Cost, Tally, cost_of, counted
from bench.programs.gpu_base import CONTEXT, GpuBase
from bench.programs.gpu_shape import of_llama_8b
from server.adapters.payload import Factored, Merged
from server.adapters.residency import Entry
from server.scheduling.step import Batch, Work

LAYERS, ROWS = 32, 32
#: The linears whose merges are counted: one of each shape.
MERGED = ("q", "k", "gate", "down")
#: Tokens of a long text; all pages that the base's cache has.
_LONG = 4000
_TUNED: dict[str, Method] = {
    "fourierft": FourierFT(1000, 300.0),
    "loca": LoCA(1000),
    "waveletft": WaveletFT(1000),
    "lora": LoRA(16, 16.0),
}


def methods() -> dict[str, Method]:
    """Return the methods that are counted: those whose bases need no values of the base's."""
    return {
        name: _TUNED.get(name) or method()
        for name, method in registered().items()
        if method.is_factored and not method.needs_base
    }


@dataclass(frozen=True)
class Counts:
    """What was counted: in all, on a side stream, and seconds that were waited for that one."""

    cost: Cost
    beside: Cost
    late_s: float = 0.0

    @classmethod
    def of(cls, tally: Tally) -> "Counts":
        """Return a tally's."""
        return cls(tally.cost, tally.beside, tally.late_s)

    def plus(self, other: "Counts", times: int = 1) -> "Counts":
        """Return both together, the other one so many times."""
        return Counts(
            self.cost.plus(other.cost, times),
            self.beside.plus(other.beside, times),
            self.late_s + times * other.late_s,
        )


@dataclass(frozen=True)
class Layered:
    """What was counted over a base of one layer and over one of two."""

    one: Counts
    two: Counts

    @property
    def layer(self) -> Counts:
        """Return what a layer costs."""
        return self.two.plus(self.one, -1)

    @property
    def whole(self) -> Counts:
        """Return what all layers of the shape and what is around them cost."""
        return self.one.plus(self.layer, LAYERS - 1)

    def beyond(self, base: "Layered") -> "Layered":
        """Return what is there beyond the base's own."""
        return Layered(self.one.plus(base.one, -1), self.two.plus(base.two, -1))


class CountedBase:
    """A base of a few layers without values, on the way of a GPU.

    Args:
        num_layers: of the base.
        bases: of the adapters, on device "meta".
    """

    def __init__(self, num_layers: int, bases: BasisCache) -> None:
        sizes = replace(of_llama_8b(), device=bases.device, layers=num_layers)
        with counted(), torch.inference_mode():  # its values are looked at
            self._base = GpuBase(sizes, bases)

    def decode(self, method: Method | None, which: str = "qv") -> Tally:
        """Count a step of 32 single tokens, each with an adapter of its own."""
        leases = self._factored(method, which, ROWS)
        return self._step(self._base.decode(leases, with_prompts=False))

    def merged(self, which: str) -> Tally:
        """Count a step of 32 single tokens through one adapter's merged weights."""
        weights = {path: self._golden(path).clone() for path in self._shapes(which)}
        lease = Entry(("merged", "merged"), payload=Merged(weights))
        return self._step(self._base.decode([lease] * ROWS, with_prompts=False))

    def prompt(self, method: Method | None, which: str = "qv") -> Tally:
        """Count a step of one prompt."""
        [lease] = self._factored(method, which, 1)
        return self._step(Batch((), (self._base.prompt(lease, CONTEXT),)))

    def long_text(self) -> Tally:
        """Count a step of one token of a long text."""
        work = self._base.prompt(None, _LONG)
        work.sequence.tokens.append(1)
        return self._step(Batch((Work.of(work.sequence, _LONG, _LONG + 1),), ()))

    def merge(self, method: Method, linear: str) -> Tally:
        """Count one linear's way from coefficients in host memory to merged weights."""
        [path] = [path for path in self._shapes("seven") if path.endswith(f"0.{_name(linear)}")]
        made, layers = self._coefficients(method, {path: self._shapes("seven")[path]})
        linears = self._base.injection.layers
        return cost_of(lambda: materialise(made, layers, linears, self._base.bases))

    def load(self, method: Method, which: str) -> Tally:
        """Count an adapter's way from host memory into a bank."""
        made, layers = self._coefficients(method, self._shapes(which))
        with counted():
            bank = Bank(Layout.of(made, self._shapes(which)), self._base.bases, slots=4)
        return cost_of(lambda: bank.add(bank.pack(made, layers)))

    def golden_bytes(self, linear: str) -> int:
        """Return the bytes of a linear's weight."""
        return next(
            self._golden(path).nbytes for path in self._shapes("seven") if _name(linear) in path
        )

    def _step(self, batch: Batch) -> Tally:
        return cost_of(lambda: self._base.engine.step(batch))

    def _golden(self, path: str) -> Tensor:
        return self._base.injection.linears[path].golden()

    def _shapes(self, which: str) -> dict[str, Shape]:
        spec = self._base.spec
        return {path: spec.targets[path] for path in targets_of(spec, which)}

    def _factored(self, method: Method | None, which: str, count: int) -> list[Entry | None]:
        """Return leases of adapters of one bank."""
        if method is None:
            return [None] * count
        shapes = self._shapes(which)
        with counted(), torch.inference_mode():
            layout = Layout.of(method.of_layers(shapes), shapes)
            bank = Bank(layout, self._base.bases, slots=count)
            slots = [bank.add(torch.zeros(layout.width)) for _ in range(count)]
        return [Entry((str(slot), "factored"), payload=Factored(bank, slot)) for slot in slots]

    def _coefficients(
        self, method: Method, shapes: Mapping[str, Shape]
    ) -> tuple[dict[str, Method], dict[str, dict[str, Tensor]]]:
        """Return the method and fresh coefficients of every layer, in host memory."""
        made, generator = method.of_layers(shapes), torch.Generator().manual_seed(0)
        with counted():
            layers = {
                path: made[path].init(
                    shape, generator, self._base.bases.get(made[path], shape, path)
                )
                for path, shape in shapes.items()
            }
        return made, layers


class CountedModel:
    """What is counted over a base of one layer and over one of two."""

    def __init__(self) -> None:
        bases = BasisCache(torch.device("meta"), base_dtype=torch.bfloat16)
        self.one, self.two = CountedBase(1, bases), CountedBase(2, bases)

    def layered(self, count: Callable[[CountedBase], Tally]) -> Layered:
        """Return what `count` gives for both."""
        return Layered(Counts.of(count(self.one)), Counts.of(count(self.two)))


def _name(linear: str) -> str:
    return f"self_attn.{linear}_proj" if linear in "qkvo" else f"mlp.{linear}_proj"
