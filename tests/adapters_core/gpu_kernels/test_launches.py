"""How many kernels a group of linears takes, counted without values."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.gpu_kernels.running import Launch, listening
from adapters_core.layers.bank import Bank, Layout
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import CLoRA, FourierFT, FRoD, LoCA, LoRA, VeRA, WaveletFT
from made import toy_bases

pytest.importorskip("triton")

META = torch.device("meta")
QKV = {"a.q": Shape(96, 64), "a.k": Shape(32, 64), "a.v": Shape(32, 64)}
#: Of the group, and of each linear.
BARS: list[tuple[Method, int, int]] = [
    (FourierFT(n=40), 1, 1),
    (LoCA(n=40), 1, 1),
    (LoRA(r=16), 1, 1),
    (CLoRA(), 1, 1),
    (WaveletFT(n=40), 1, 1),
    (WaveletFT(n=40, wavelet="db2", num_levels=3), 1, 1),
    (VeRA(), 2, 3),
    (FRoD(), 0, 5),  # q, k and v have no basis in common
]


class Operations(TorchDispatchMode):
    """Counts the operations that run a kernel: all but views and what only takes memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returns = [one.alias_info for one in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returns)
        if not is_view and "empty" not in str(func):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("method", "group", "linear"), BARS)
def test_kernels_of_a_group(method: Method, group: int, linear: int) -> None:
    weights = toy_bases(QKV)._weights
    bank = Bank(Layout.of(method.of_layers(QKV), QKV), BasisCache(META, weights))
    x = torch.empty(8, 64, dtype=torch.bfloat16, device=META)
    slots = torch.empty(8, dtype=torch.int64, device=META)
    launches: list[Launch] = []
    begun: dict[int, Any] = {}
    with Operations() as operations, listening(launches.append):
        for path, shape in QKV.items():
            found = bank.kernels_of(path)
            assert found is not None
            kernels, number = found
            if id(kernels) not in begun:
                begun[id(kernels)] = kernels.begin(x, bank.buffer, slots, number)
            y = torch.empty(8, shape.out, dtype=torch.bfloat16, device=META)
            kernels.add(begun[id(kernels)], number, y, bank.buffer, slots)
    assert operations.count + len(launches) == group + linear * len(QKV)
