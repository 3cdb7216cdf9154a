"""Quantiles of a regression: their loss, and how often the truth lies below them."""

import numpy as np
import pytest
from sklearn.metrics import mean_pinball_loss

from aios_platform.metrics.quantiles import coverage_error, quantile_metrics

LEVELS = (0.1, 0.5, 0.9)


def test_the_loss_is_scikit_learns_and_coverage_is_counted():
    generator = np.random.default_rng(1)
    truth = generator.normal(size=500)
    predicted = np.sort(generator.normal(size=(500, 3)), axis=1)
    found = quantile_metrics(truth, predicted, LEVELS)
    each = [
        mean_pinball_loss(truth, predicted[:, i], alpha=level) for i, level in enumerate(LEVELS)
    ]
    assert found["pinball"] == pytest.approx(np.mean(each))
    assert found["coverage_0.5"] == (truth <= predicted[:, 1]).mean()
    inside = (truth >= predicted[:, 0]) & (truth <= predicted[:, 2])
    assert found["interval_coverage"] == inside.mean()
    worst = max(abs(found[f"coverage_{level:g}"] - level) for level in LEVELS)
    assert coverage_error(found, LEVELS) == worst


def test_nothing_is_said_without_levels_or_coverage():
    assert quantile_metrics(np.ones(2), np.empty((2, 0)), ()) == {}
    assert coverage_error({}, ()) is None
    assert coverage_error({"coverage_0.1": 0.1}, LEVELS) is None
