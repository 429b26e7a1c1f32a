"""How the demo's base is trained: its shape, the order of its windows, Muon, the loop, the loss.

The learning rate follows the share of the budget that is used up, so the run ends well whatever
the machine's speed. Equal seed, steps, threads and versions give equal weights.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

Llama: TypeAlias = Any  # a LlamaForCausalLM, its type hints do not fit its own calls


@dataclass(frozen=True)
class Recipe:
    """The base's shape and how it is trained."""

    vocabulary: int = 1024
    width: int = 128
    inner: int = 352
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    window: int = 512  # tokens; also the longest position
    batch: int = 4  # windows a step
    matrix_rate: float = 0.02  # Muon's peak learning rate
    vector_rate: float = 0.01  # AdamW's: embedding and norms
    warmup: float = 0.03  # of the budget
    seed: int = 0


@dataclass(frozen=True)
class Budget:
    """How long to train: so many steps or, where `steps` is None, so many seconds."""

    seconds: float = 90.0
    steps: int | None = None

    def used(self, step: int, elapsed_s: float) -> float:
        """Return the share that is used up; 1 or more ends the training."""
        return elapsed_s / self.seconds if self.steps is None else step / self.steps


@dataclass(frozen=True)
class Progress:
    """One line of a training run."""

    step: int
    loss: float  # nats a token
    elapsed_s: float
    used: float

    def __str__(self) -> str:
        left = self.elapsed_s * (1 / self.used - 1) if self.used else math.inf
        return f"step {self.step:5d}  loss {self.loss:.3f}  {max(left, 0):4.0f} s left"


def new_model(recipe: Recipe) -> Llama:
    """Return a fresh float32 Llama, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.window,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config)


def windows(tokens: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Yield batches [batch, window] without end: each pass at another offset, in another order."""
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        offset = int(torch.randint(recipe.window, (1,), generator=generator))
        rows = tokens[offset:].unfold(0, recipe.window, recipe.window)
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(order), recipe.batch):
            yield rows[order[start : start + recipe.batch]]


def learning_rate(recipe: Recipe, used: float) -> float:
    """Return the share of the peak rates: linear warmup, then a cosine down to zero."""
    if used < recipe.warmup:
        return (used + 0.01) / (recipe.warmup + 0.01)
    left = (1 - used) / (1 - recipe.warmup)
    return 0.5 - 0.5 * math.cos(math.pi * max(left, 0.0))


class Muon(torch.optim.Optimizer):
    """Gradient steps whose matrix is made orthogonal first (Jordan et al. 2024).

    Here it reaches AdamW's loss in less than half the steps. The quintic Newton-Schulz iteration
    and its three numbers are the authors'; torch has Muon from 2.9 on, this supports 2.7.
    """

    def __init__(self, matrices: Iterable[Tensor], momentum: float = 0.95, decay: float = 0.1):
        super().__init__(matrices, {"lr": 0.0, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                mean.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(mean, group["momentum"]))
                rate = group["lr"] * max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.mul_(1 - group["lr"] * group["decay"]).sub_(update, alpha=rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return `matrix` [out, in] with its singular values moved near 1."""
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def optimizers(model: Llama, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Return Muon for the layers' matrices, AdamW for the rest, each with its peak rate."""
    named = list(model.named_parameters())
    is_matrix = {name: p.ndim == 2 and "embed" not in name for name, p in named}
    muon = Muon([p for name, p in named if is_matrix[name]])
    rest = [p for name, p in named if not is_matrix[name]]
    adam = torch.optim.AdamW(rest, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, recipe.matrix_rate), (adam, recipe.vector_rate)]


def train(
    model: Llama,
    tokens: Tensor,
    recipe: Recipe,
    budget: Budget,
    report: Callable[[Progress], None],
) -> Progress:
    """Train `model` in place, reporting every 20 steps; returns the last step's progress."""
    started, parts = time.monotonic(), optimizers(model, recipe)
    progress = Progress(0, math.inf, 0.0, 0.0)
    model.train()
    for batch in windows(tokens, recipe):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in parts:
            for group in optimizer.param_groups:
                group["lr"] = peak * learning_rate(recipe, progress.used)
            optimizer.step()
        model.zero_grad()
        step, elapsed_s = progress.step + 1, time.monotonic() - started
        progress = Progress(step, loss.item(), elapsed_s, budget.used(step, elapsed_s))
        if progress.step % 20 == 0 or progress.used >= 1:
            report(progress)
        if progress.used >= 1:
            break
    model.eval()
    return progress


@torch.no_grad()
def nats_per_token(model: Llama, tokens: Tensor) -> float:
    """Return the mean loss over `tokens` [T], read in windows of the model's longest position."""
    total = 0.0
    count = 0
    longest = model.config.max_position_embeddings
    for start in range(0, len(tokens) - 1, longest):
        window = tokens[None, start : start + longest]
        if window.shape[1] > 1:
            predicted = window.shape[1] - 1
            total += model(input_ids=window, labels=window).loss.item() * predicted
            count += predicted
    return total / count
