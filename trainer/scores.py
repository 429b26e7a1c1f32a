"""The figures by which models of labels are compared, over predicted and expected `[N]`."""

import math

import torch
from torch import Tensor


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
