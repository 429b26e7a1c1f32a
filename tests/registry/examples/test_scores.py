"""Metrics are scikit-learn's and scipy's."""

import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from registry.examples.scores import accuracy, f1, matthews, pearson


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("skill", [0.0, 0.5, 1.0])
def test_scores_of_classes_are_scikit_learns(classes: int, skill: float) -> None:
    generator = torch.Generator().manual_seed(classes)
    true = torch.randint(classes, (200,), generator=generator)
    guess = torch.randint(classes, (200,), generator=generator)
    got = torch.where(torch.rand(200, generator=generator) < skill, true, guess)
    average = "binary" if classes == 2 else "macro"
    assert accuracy(got, true) == pytest.approx(accuracy_score(true, got))
    assert f1(got, true) == pytest.approx(f1_score(true, got, average=average))
    assert matthews(got, true) == pytest.approx(matthews_corrcoef(true, got))


def test_one_class_everywhere_has_no_correlation() -> None:
    true, got = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 1])
    assert matthews(got, true) == matthews_corrcoef(true, got) == 0
    assert f1(torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)) == 0


def test_pearson_is_scipys() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, generator=generator)
    y = 0.3 * x + torch.randn(100, generator=generator)
    assert pearson(x, y) == pytest.approx(pearsonr(x.numpy(), y.numpy()).statistic)
    assert pearson(torch.ones(5), x[:5]) == 0
