"""Bootstrap intervals agree with resampling the rows themselves."""

import numpy as np
import pytest

from aios_platform.errors import MetricError
from aios_platform.metrics import METRICS, evaluate, gain
from aios_platform.resampling import gain_interval, metric_interval, seed_of


def contest(rows=400, seed=0, digits=2):
    """Labels, and the scores of a better and a worse model, with ties."""
    generator = np.random.default_rng(seed)
    labels = generator.random(rows) < 0.3
    signal = generator.normal(size=rows) + 1.5 * labels - 1
    scores = [
        (1 / (1 + np.exp(-(signal + generator.normal(0, noise, rows))))).round(digits)
        for noise in (0.2, 0.6)
    ]
    return labels, *scores


def by_copying_rows(name, labels, scores, reference, resamples=1500):
    """The stratified paired bootstrap, spelled out."""
    generator = np.random.default_rng(1)
    positives, negatives = np.flatnonzero(labels), np.flatnonzero(~labels)
    found = []
    for _ in range(resamples):
        rows = np.concatenate(
            [generator.choice(group, group.size) for group in (positives, negatives)]
        )
        values = [evaluate(labels[rows], s[rows], [name])[name] for s in (scores, reference)]
        found.append(gain(name, *values))
    return np.quantile(found, [0.025, 0.975])


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc", "log_loss", "brier"])
def test_interval_is_that_of_copied_rows(name):
    labels, better, worse = contest()
    found = gain_interval(name, labels, better, worse, seed=7)
    low, high = by_copying_rows(name, labels, better, worse)
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)


@pytest.mark.parametrize("name", METRICS)
def test_estimate_is_the_metric_of_the_rows(name):
    labels, better, worse = contest()
    values = [evaluate(labels, scores)[name] for scores in (better, worse)]
    found = gain_interval(name, labels, better, worse, seed=1, resamples=200)
    assert found.estimate == pytest.approx(gain(name, *values))
    alone = metric_interval(name, labels, better, seed=1, resamples=200)
    assert alone.estimate == values[0]
    assert found.low < found.high
    assert alone.low < alone.high
    if name != "ece":  # resampling adds noise to the bins, which can only raise the error
        assert alone.low < alone.estimate < alone.high


@pytest.mark.parametrize("name", METRICS)
def test_equal_models_differ_by_exactly_nothing(name):
    labels, scores, _ = contest()
    found = gain_interval(name, labels, scores, scores.copy(), seed=3, resamples=200)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)


def test_swapping_the_models_turns_the_interval_around():
    labels, better, worse = contest()
    there = gain_interval("roc_auc", labels, better, worse, seed=3, resamples=500)
    back = gain_interval("roc_auc", labels, worse, better, seed=3, resamples=500)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_same_seed_same_interval_other_seed_other():
    labels, better, worse = contest()
    one, again, other = (
        gain_interval("roc_auc", labels, better, worse, seed=seed, resamples=300)
        for seed in (5, 5, 6)
    )
    assert one == again != other


def test_equally_good_models_are_told_apart_as_rarely_as_promised():
    outside = 0
    for seed in range(150):
        generator = np.random.default_rng(seed)
        labels = generator.random(250) < 0.4
        signal = generator.normal(size=250) + labels
        pair = [1 / (1 + np.exp(-(signal + generator.normal(0, 0.7, 250)))) for _ in range(2)]
        found = gain_interval("roc_auc", labels, *pair, seed=seed, resamples=250)
        outside += not found.low <= 0 <= found.high
    # Expected 7.5; more than 16 has a probability below 0.2 %.
    assert outside <= 16


def test_scores_of_the_reference_are_checked_too():
    labels, better, worse = contest()
    worse[3] = np.nan
    with pytest.raises(MetricError, match="not probabilities"):
        gain_interval("roc_auc", labels, better, worse, seed=0)
    with pytest.raises(MetricError, match="no metric 'macro_f1'"):
        metric_interval("macro_f1", labels, better, seed=0)


def test_seed_depends_on_the_digest():
    assert seed_of("ab" * 32) == seed_of("ab" * 32) != seed_of("cd" * 32)
