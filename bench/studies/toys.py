"""Two toy problems of the papers: how much a few numbers in one layer can express.

`gaussians`: eight classes of points in the plane, 2 -> 64 -> 64 -> 8. The 64 x 64 layer is nothing
but the update of a method, with 128 numbers. FourierFT's appendix C.2 has it reach 100 % in about
500 epochs, and LoRA r = 1 never in 2,000. The layers around it are trained with it. Where the
paper's text leaves the toy open (the places and widths of the classes, the optimiser) it was
chosen here.

`linear`: WaveFT's layer 784 -> 10 with 794, 1,588 and 2,382 numbers, LoRA's at r = 1, 2, 3. Its
pictures are scikit-learn's digits, 8 x 8, enlarged to 28 x 28: MNIST is in no package. So only the
shape of the result is comparable: which method is ahead at which budget.

Why: both separate rank from the number of coefficients, which is what the methods are about.

    overtone bench training_toys [--seeds 3] [--epochs 2000] [--only gaussians]
"""

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from adapters_core.contract.layer import Shape
from adapters_core.contract.method import Method
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.methods import FourierFT, LoCA, LoRA, SHiRA, WaveletFT
from bench.lib.program import Parser
from bench.lib.timing import report

_HIDDEN, _CLASSES, _POINTS = Shape(64, 64), 8, 30
#: Rates of both toys: the numbers of a method move as far whatever the norm of its atoms.
_STEP, _RATE = 5e-2, 5e-3


class OnlyUpdate(nn.Module):
    """A linear whose weight is a method's update alone.

    Args:
        method: of the update.
        shape: of the layer.
        seed: draws where it starts.
        start: deviation of what a fresh adapter has as zeros. A layer that is zero between two
            ReLUs would never learn; FourierFT's paper starts from a deviation of 1.
    """

    def __init__(self, method: Method, shape: Shape, seed: int, start: float = 0.0) -> None:
        super().__init__()
        self._method, self._shape = method.fitted(shape), shape
        self._basis = BasisCache(torch.device("cpu")).get(self._method, shape)
        generator = torch.Generator().manual_seed(seed)
        fresh = self._method.training_init(shape, generator, self._basis)
        self._fixed = {k: v for k, v in fresh.items() if not v.is_floating_point()}
        self._names = [name for name in fresh if name not in self._fixed]
        drawn = {k: torch.randn(fresh[k].shape, generator=generator) for k in self._names}
        begun = [fresh[k] if fresh[k].any() else start * drawn[k] for k in self._names]
        self._own = nn.ParameterList([nn.Parameter(tensor) for tensor in begun])

    def forward(self, x: Tensor) -> Tensor:
        """Return `[T, out]` for x `[T, in]`."""
        trained = self._fixed | dict(zip(self._names, self._own, strict=True))
        analysed = self._method.training_analyse(x, self._shape, self._basis)
        return self._method.training_apply(analysed, trained, self._shape, self._basis)


def gaussians(seed: int) -> tuple[Tensor, Tensor]:
    """Return points `[N, 2]` around eight centres on a circle, and their classes `[N]`."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.arange(_CLASSES) * (2 * math.pi / _CLASSES)
    centres = 2 * torch.stack([turns.cos(), turns.sin()], 1)
    noise = 0.15 * torch.randn(_CLASSES, _POINTS, 2, generator=generator)
    x = (centres[:, None] + noise).flatten(0, 1)
    return x, torch.arange(_CLASSES).repeat_interleave(_POINTS)


def gaussian_toy(
    method: Method, rate: float, epochs: int, seed: int, bias: bool = False
) -> dict[str, Any]:
    """Return the best accuracy on the points that are learned, and the epoch of 100 %."""
    torch.manual_seed(seed)
    x, y = gaussians(seed)
    layer = OnlyUpdate(method, _HIDDEN, seed, start=1.0)
    first, last = nn.Linear(2, 64, bias), nn.Linear(64, _CLASSES, bias)
    model = nn.Sequential(first, nn.ReLU(), layer, nn.ReLU(), last)
    around = [*first.parameters(), *last.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": around},
        {"params": list(layer.parameters()), "lr": rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, weight_decay=0.0)
    best = 0.0
    for epoch in range(epochs):
        logits = model(x)
        right = float((logits.argmax(-1) == y).double().mean())
        best = max(best, right)
        if right == 1.0:
            return {"accuracy": best, "epoch": epoch}
        optimizer.zero_grad()
        F.cross_entropy(logits, y).backward()
        optimizer.step()
    return {"accuracy": best, "epoch": None}


def large_digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return pictures `[N, 784]` and classes, 1,297 to learn and 500 held out."""
    found = load_digits()
    x = torch.from_numpy(found.images).float()[:, None] / 16
    x = F.interpolate(x, size=28, mode="bilinear").flatten(1)
    y = torch.from_numpy(found.target).long()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    learned, held = order[:-500], order[-500:]
    return x[learned], y[learned], x[held], y[held]


def linear(method: Method, rate: float, epochs: int, seed: int) -> dict[str, Any]:
    """Return the held-out accuracy of one layer whose weight is the update alone."""
    x, y, held_x, held_y = large_digits(seed)
    layer = OnlyUpdate(method, Shape(10, 784), seed)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=0.0)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - epoch / epochs)
        optimizer.zero_grad()
        F.cross_entropy(layer(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        right = float((layer(held_x).argmax(-1) == held_y).double().mean())
    return {"accuracy": right, "epoch": None}


def contenders(toy_name: str) -> list[tuple[str, Method, float]]:
    """Return (name, method, rate) of a toy's lines, each beside LoRA of as many numbers."""
    if toy_name in ("gaussians", "biased"):
        # An atom of FourierFT at scale a has the norm a / sqrt(2 M N); these have norm 1.
        fourier = FourierFT(128, math.sqrt(2 * 64 * 64))
        named = {"fourierft n=128": fourier, "loca n=128": LoCA(128)}
        named["waveletft n=128"] = WaveletFT(128, 1.0)
        own = [(name, method, _STEP) for name, method in named.items()]
        return [*own, ("lora r=1", LoRA(1, 1.0), _RATE)]
    lines: list[tuple[str, Method, float]] = []
    for r in (1, 2, 3):
        lines.append((f"lora r={r}", LoRA(r, float(r)), _RATE))
        lines.append((f"shira r={r}", SHiRA(r), _STEP))
        n = r * 794
        lines.append((f"waveletft n={n}", WaveletFT(n, 1.0), _STEP))
        lines.append((f"fourierft n={n}", FourierFT(n, math.sqrt(2 * 7840)), _STEP))
    return lines


TOYS: dict[str, Callable[[Method, float, int, int], dict[str, Any]]] = {
    "gaussians": gaussian_toy,
    "biased": partial(gaussian_toy, bias=True),
    "linear": linear,
}


def rows_of(name: str, epochs: int, seeds: int) -> list[dict[str, Any]]:
    """Return one row for each line of a toy, over its seeds."""
    rows = []
    for what, method, rate in contenders(name):
        runs = [TOYS[name](method, rate, epochs, seed) for seed in range(seeds)]
        accuracies = [run["accuracy"] for run in runs]
        reached = [run["epoch"] for run in runs if run["epoch"] is not None]
        rows.append(
            {
                "what": f"{name}, {what}",
                "accuracy": statistics.mean(accuracies),
                "least": min(accuracies),
                "most": max(accuracies),
                "reached_100": len(reached),
                "epochs_to_100": statistics.median(reached) if reached else None,
                "seeds": seeds,
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench training_toys", description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2000, help="at most; linear takes 300")
    parser.add_argument("--only", choices=sorted(TOYS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    epochs = dict.fromkeys(TOYS, options.epochs) | {"linear": min(300, options.epochs)}
    names = [name for name in TOYS if options.only in (None, name)]
    rows = [row for name in names for row in rows_of(name, epochs[name], options.seeds)]
    report("training_toys", rows)
