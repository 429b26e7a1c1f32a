"""The figures of an evaluation: of classes and numbers over predicted and expected `[N]`, of texts.

Training and `overtone evaluate` take them from here, so that they mean the same.
"""

import math

import torch
from torch import Tensor


def text_figures(loss: float, count: int, right: int) -> dict[str, float]:
    """Return the figures of `count` tokens: summed `loss` in nats, `right` were likeliest."""
    mean = loss / max(1, count)
    perplexity = float(torch.tensor(mean).exp())
    return {"eval_loss": mean, "perplexity": perplexity, "accuracy": right / max(1, count)}


def class_figures(loss: float, got: Tensor, true: Tensor) -> dict[str, float]:
    """Return the figures of predicted and expected classes with a mean loss in nats."""
    return {
        "eval_loss": loss,
        "accuracy": accuracy(got, true),
        "f1": f1(got, true),
        "matthews": matthews(got, true),
    }


def number_figures(loss: float, got: Tensor, true: Tensor) -> dict[str, float]:
    """Return the figures of predicted and expected numbers with a mean squared error."""
    return {"eval_loss": loss, "pearson": pearson(got, true)}


def finite(value: float) -> float:
    """Return a value that JSON can carry; a perplexity may be too large for it."""
    return value if math.isfinite(value) else float(torch.finfo(torch.float32).max)


def accuracy(got: Tensor, true: Tensor) -> float:
    """Return the share of right answers."""
    return float((got == true).double().mean())


def f1(got: Tensor, true: Tensor) -> float:
    """Return F1 of class 1 where there are two classes 0 and 1, else the mean over all classes.

    As scikit-learn's `f1_score` with `average="binary"` and `"macro"`; 0 where nothing is right.
    """
    classes = torch.unique(torch.cat([got, true]))
    if bool((classes <= 1).all()):
        return _f1_of(got, true, 1)
    return sum(_f1_of(got, true, int(one)) for one in classes) / len(classes)


def _f1_of(got: Tensor, true: Tensor, one: int) -> float:
    right = int(((got == one) & (true == one)).sum())
    named = int((got == one).sum()) + int((true == one).sum())
    return 2 * right / named if named else 0.0


def matthews(got: Tensor, true: Tensor) -> float:
    """Return the correlation of classes (Gorodkin 2004); 0 where either is one class only."""
    size = int(torch.cat([got, true]).max()) + 1
    table = torch.zeros(size, size, dtype=torch.float64)
    table.index_put_((true, got), torch.ones(len(got), dtype=torch.float64), accumulate=True)
    expected, predicted, total = table.sum(1), table.sum(0), table.sum()
    covariance = table.trace() * total - expected @ predicted
    spread = (total**2 - predicted @ predicted) * (total**2 - expected @ expected)
    return float(covariance / spread.sqrt()) if spread > 0 else 0.0


def pearson(got: Tensor, true: Tensor) -> float:
    """Return the linear correlation; 0 where either does not vary."""
    x, y = got.double() - got.double().mean(), true.double() - true.double().mean()
    size = float(x.norm() * y.norm())
    value = float(x @ y) / size if size > 0 else 0.0
    return value if math.isfinite(value) else 0.0
