"""CLoRA's parts, one by one: shared spaces, full or diagonal maps, SADE; beside LoRA.

What: a small ViT learns the digits 0 to 4 of scikit-learn's 8 x 8 images, then its base is frozen
and a new head with adapters on query and value learns the digits 5 to 9 from a few images each.
For every contender: test accuracy of each seed and their mean, mean |cos| between rows of
different spaces, what was trained beside the head, and the bytes of the adapter's file. A seed
sets the images, the head, the adapter and the order, so contenders are compared pairwise; `head`
trains no adapter at all. LoRA's rank is the one with as many numbers as CLoRA with full maps.
Why: the paper itself could not be had, so none of its numbers is a target. What can be asked is
the shape: does SADE make the spaces more different, and does that cost accuracy?

    overtone bench clora [--seeds 3] [--first-seed 0] [--images 10] [--sade 0.1 1]
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from adapters_core.base.spec import BaseSpec, spec_of
from adapters_core.contract.method import Method
from adapters_core.format.write import WEIGHTS_NAME, write_adapter
from adapters_core.layers.basis_cache import BasisCache
from adapters_core.layers.inject import Injection, inject
from adapters_core.layers.training_plan import TrainingPlan
from adapters_core.methods import CLoRA, LoRA
from bench.lib.program import Parser
from bench.lib.timing import report

_WIDTH, _CLASSES, _BATCH = 64, 5, 32


@dataclass(frozen=True)
class Images:
    """Pictures x `[N, 1, 8, 8]` in 0..1 and their classes y `[N]`, counted from 0."""

    x: Tensor
    y: Tensor

    @classmethod
    def of_digits(cls, digits: range) -> "Images":
        """Return scikit-learn's pictures of these digits."""
        found = load_digits()
        x = torch.from_numpy(found.images).float()[:, None] / 16
        y = torch.from_numpy(found.target).long()
        kept = (y >= digits.start) & (y < digits.stop)
        return cls(x[kept], y[kept] - digits.start)

    def parted(self, per_class: int, seed: int) -> tuple["Images", "Images"]:
        """Return `per_class` random pictures of each class, and all the others."""
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(seed))
        first = [order[self.y[order] == c][:per_class] for c in range(_CLASSES)]
        rest = [order[self.y[order] == c][per_class:] for c in range(_CLASSES)]
        return self._at(torch.cat(first)), self._at(torch.cat(rest))

    def batches(self, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `steps` random batches."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            picked = torch.randperm(len(self.y), generator=generator)[:_BATCH]
            yield self.x[picked], self.y[picked]

    def _at(self, index: Tensor) -> "Images":
        return Images(self.x[index], self.y[index])


def vit() -> nn.Module:
    """Return a fresh ViT of four layers for 8 x 8 pictures in patches of 2 x 2."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=_WIDTH,
        intermediate_size=2 * _WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config, add_pooling_layer=False)


def new_head(seed: int) -> nn.Linear:
    """Return a fresh linear from the class token to the classes."""
    torch.manual_seed(seed)
    return nn.Linear(_WIDTH, _CLASSES)


def logits(model: nn.Module, head: nn.Module, x: Tensor) -> Tensor:
    """Return `[N, classes]`."""
    result: Tensor = head(model(x).last_hidden_state[:, 0])
    return result


def pretrained(steps: int) -> tuple[nn.Module, float]:
    """Return a frozen ViT that knows the digits 0 to 4, and its accuracy on 20 unseen of each."""
    model, head = vit(), new_head(0)
    test, train = Images.of_digits(range(_CLASSES)).parted(20, seed=0)
    trained = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.05)
    for x, y in train.batches(steps, seed=0):
        optimizer.zero_grad()
        F.cross_entropy(logits(model, head, x), y).backward()
        optimizer.step()
    model.eval().requires_grad_(False)
    return model, accuracy(model, head, test)


@torch.no_grad()
def accuracy(model: nn.Module, head: nn.Module, images: Images) -> float:
    """Return the share of the pictures that are told right."""
    return int((logits(model, head, images.x).argmax(-1) == images.y).sum()) / len(images.y)


@dataclass(frozen=True)
class Bench:
    """A frozen base in which adapters learn the digits 5 to 9."""

    injection: Injection
    spec: BaseSpec
    images: Images
    steps: int
    per_class: int
    rate: float

    @classmethod
    def on(cls, model: nn.Module, steps: int, per_class: int, rate: float) -> "Bench":
        """Return the bench on a pretrained model, which it injects."""
        spec = spec_of(model, "vit")
        images = Images.of_digits(range(_CLASSES, 2 * _CLASSES))
        return cls(inject(model), spec, images, steps, per_class, rate)

    def plan(self, method: Method, seed: int) -> TrainingPlan:
        """Return fresh coefficients on query and value."""
        targets = [t for t in self.spec.targets if t.endswith(("q_proj", "v_proj"))]
        shapes = {target: self.spec.targets[target] for target in targets}
        generator = torch.Generator().manual_seed(seed)
        return TrainingPlan(method, shapes, BasisCache(torch.device("cpu")), generator)

    def adapted(self, plan: TrainingPlan | None, seed: int) -> float:
        """Train a head and the plan on a few pictures; return the accuracy on all others."""
        train, test = self.images.parted(self.per_class, seed)
        head, model = new_head(100 + seed), self.injection.model
        self.injection.switch.plan = plan
        parameters = [*head.parameters(), *(plan.parameters() if plan else ())]
        optimizer = torch.optim.AdamW(parameters, lr=self.rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for x, y in train.batches(self.steps, seed):
            optimizer.zero_grad()
            loss = F.cross_entropy(logits(model, head, x), y)
            term = plan.regulariser() if plan else None
            (loss if term is None else loss + term).backward()
            optimizer.step()
            schedule.step()
        return accuracy(model, head, test)

    def file_bytes(self, plan: TrainingPlan) -> int:
        """Return the size of the adapter's weights file."""
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder), plan.methods, plan.exported(), self.spec)
            return (Path(folder) / WEIGHTS_NAME).stat().st_size

    def row(self, name: str, method: Method | None, seeds: range) -> dict[str, Any]:
        """Return one contender's measurements over the seeds."""
        plans = [self.plan(method, seed) if method else None for seed in seeds]
        found = [100 * self.adapted(plan, seed) for seed, plan in zip(seeds, plans, strict=True)]
        row: dict[str, Any] = {"what": name, "accuracy %": statistics.mean(found)}
        row["per seed"] = [round(value, 2) for value in found]
        done = [plan for plan in plans if plan]
        if done:
            row["numbers"] = sum(parameter.numel() for parameter in done[0].parameters())
            row["file bytes"] = self.file_bytes(done[0])
        if isinstance(method, CLoRA):
            row["mean |cos|"] = statistics.mean(mean_cosine(plan, method) for plan in done)
            fresh = [mean_cosine(self.plan(method, seed), method) for seed in seeds]
            row["mean |cos| at start"] = statistics.mean(fresh)
        return row


@torch.no_grad()
def mean_cosine(plan: TrainingPlan, method: CLoRA) -> float:
    """Return the mean |cos| between rows of different spaces, over all that layers share."""
    shared: dict[int, Tensor] = {}
    for layer in plan.layers.values():
        shared[id(layer["clora_down"])] = layer["clora_down"]
        shared[id(layer["clora_up"])] = layer["clora_up"].T
    apart = torch.ones(method.num_spaces, method.num_spaces).triu(diagonal=1).bool()
    apart = apart.repeat_interleave(method.r, 0).repeat_interleave(method.r, 1)
    found = [F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).T for rows in shared.values()]
    return float(torch.stack([cosines.abs()[apart].mean() for cosines in found]).mean())


def contenders(weights: Sequence[float]) -> dict[str, Method | None]:
    """Return what is compared; 5120 numbers but for the diagonal maps and the head alone."""
    kinds: dict[str, Method | None] = {"head": None, "LoRA r=5": LoRA(5, 5.0)}
    for maps, diagonal in (("full", False), ("diagonal", True)):
        for weight in (0.0, *weights):
            sade = f"SADE {weight:g}" if weight else "no SADE"
            method = CLoRA(4, 8, diagonal, sade_weight=weight)
            kinds[f"CLoRA r=4 K=8, {maps} maps, {sade}"] = method
    return kinds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = Parser(prog="overtone bench clora", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=10, help="of each class to learn from")
    parser.add_argument("--rate", type=float, default=5e-3)
    parser.add_argument("--sade", type=float, nargs="+", default=[0.1])
    parser.add_argument("--pretraining", type=int, default=400, help="steps")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # matrices this small gain nothing from two
    model, known = pretrained(options.pretraining)
    bench = Bench.on(model, options.steps, options.images, options.rate)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    rows = [{"what": "the base on digits 0 to 4", "accuracy %": 100 * known}]
    rows += [bench.row(name, m, seeds) for name, m in contenders(options.sade).items()]
    report("clora", rows)
