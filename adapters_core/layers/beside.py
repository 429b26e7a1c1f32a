"""Updates by kernels, computed on a side stream beside the base's own products.

A linear that shares its rows with none:

    side    what is begun on the rows
    main    the product                  the update is added to it

Linears that share their rows, all at the first one's call, once that is known:

    side    begun, updates of the others         the first one's update is added to its product
    main    the first one's product              the others' products, onto their updates

There the updates of the others are where their products begin to sum, and no launch stands behind
a product. Nor does one where the update is asked for apart (linear.py): it is written on the side
stream.
"""

from collections.abc import Mapping

from torch import Tensor

from adapters_core.contract.kernel_group import KernelGroup
from adapters_core.layers.bank import Bank
from adapters_core.layers.last_rows import LastRows
from adapters_core.layers.linear import AdaptedLayer, AdaptedLinear, Apart
from adapters_core.layers.side_stream import SideStream


class UpdatesBeside:
    """What the kernels of a bank add to the base's answers in one step.

    Args:
        bank: of the rows' adapters.
        slots: int64 `[T]`, of all rows of the step.
    """

    def __init__(self, bank: Bank, slots: Tensor) -> None:
        self._bank, self._slots = bank, slots
        self._last, self._side = LastRows(), SideStream()
        #: Number in the kernels -> layer and its answer for the last rows.
        self._ready: dict[int, tuple[AdaptedLayer, Tensor]] = {}

    def has(self, layer: AdaptedLayer) -> bool:
        """Return whether kernels add a layer's update."""
        return isinstance(layer, AdaptedLinear) and self._bank.kernels_of(layer.path) is not None

    def answer(self, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """Return a layer's answer `[T, out]` for the rows x, the base's own and the updates."""
        kernels, number = self._of(layer)
        if self._last.are(x, _key(kernels, number)) and number in self._ready:
            own, y = self._ready.pop(number)
            if own is layer:
                return y
        others = kernels.runs.others_behind(number) if self.begin(layer, x) else {}
        if others:
            return self._together(layer, x, others)
        if layer.apart is not None and layer.apart.is_asked_for:
            return self._with_apart(layer.apart, layer, x)
        return self.add_to(layer.base_rows(x), layer)

    def begin(self, layer: AdaptedLayer, x: Tensor) -> bool:
        """Begin on the rows x beside what follows; return False if that was done already."""
        kernels, number = self._of(layer)
        key = _key(kernels, number)
        if self._last.are(x, key):
            kernels.runs.put_behind(number, layer)
            return False
        if self._last.key == key:
            kernels.runs.split(number)
        self._forget_ready()
        with self._side.forked(x.device):
            begun = kernels.begin(x, self._bank.buffer, self._slots, number)
        self._last.put(x, _key(kernels, number), begun)
        return True

    def add_to(self, y: Tensor, layer: AdaptedLayer) -> Tensor:
        """Return y `[T, out]` with a layer's updates, whose rows were begun on; y is changed."""
        self._side.join()
        self._add(layer, y)
        return y

    def _together(
        self, layer: AdaptedLayer, x: Tensor, others: Mapping[int, AdaptedLinear]
    ) -> Tensor:
        """Return a layer's answer, and let those of others that see the same rows be ready."""
        # Memory of the main stream: it outlives the fork.
        answers = {number: x.new_empty(len(x), other.shape.out) for number, other in others.items()}
        with self._side.forked(x.device):
            for number, other in others.items():
                is_begun = other.put_bias(answers[number])
                self._add(other, answers[number], adds=is_begun)
        y = layer.base_rows(x)
        self._side.join()
        with self._side.forked(x.device):
            self._add(layer, y)
        for number, other in others.items():
            self._ready[number] = other, other.add_product(answers[number], x)
        self._side.join()
        return y

    def _with_apart(self, apart: Apart, layer: AdaptedLayer, x: Tensor) -> Tensor:
        """Return the base's own answer, and hand the update over."""
        update = x.new_empty(len(x), layer.shape.out)
        with self._side.forked(x.device):
            self._add(layer, update, adds=False)
        y = layer.base_rows(x)
        self._side.join()
        apart.put(update, y)
        return y

    def _add(self, layer: AdaptedLayer, y: Tensor, adds: bool = True) -> None:
        kernels, number = self._of(layer)
        kernels.add(self._last.made, number, y, self._bank.buffer, self._slots, adds)

    def _forget_ready(self) -> None:
        """Compute no more together with others what was not asked for."""
        for layer, _ in self._ready.values():
            kernels, number = self._of(layer)
            kernels.runs.take_out(number)
        self._ready.clear()

    def _of(self, layer: AdaptedLayer) -> tuple[KernelGroup, int]:
        found = self._bank.kernels_of(layer.path)
        assert found is not None
        return found


def _key(kernels: KernelGroup, number: int) -> tuple[KernelGroup, int]:
    return kernels, kernels.runs.of(number).start
