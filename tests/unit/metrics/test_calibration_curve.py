"""Calibration: exact identities, intervals that cover, and errors freed of their bias."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from aios_platform import metrics
from aios_platform.metrics.binning import normal_cdf

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 50).map(lambda n: n / 50)), min_size=2, max_size=80
).filter(lambda rows: len({label for label, _ in rows}) == 2)


def calibrated(rows, seed, shift=0.0):
    """Labels drawn from probabilities, and the probabilities, put off by a constant."""
    generator = np.random.default_rng(seed)
    truth = generator.beta(2, 5, rows) * 0.9
    return generator.random(rows) < truth, truth + shift


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 20))
def test_the_parts_of_the_brier_score_add_up(rows, bins):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    parts = metrics.brier_decomposition(labels, scores, bins=bins)
    assert parts.brier == pytest.approx(metrics.brier(labels, scores))
    assert parts.brier == pytest.approx(
        parts.reliability
        - parts.resolution
        + parts.uncertainty
        + parts.within_variance
        - parts.within_covariance
    )
    assert parts.brier == pytest.approx(
        parts.reliability - parts.generalized_resolution + parts.uncertainty
    )
    assert min(parts.reliability, parts.resolution, parts.within_variance) >= 0
    assert parts.reliability_debiased <= parts.reliability + 1e-15
    assert metrics.reliability(labels, scores, bins) == pytest.approx(parts.reliability_debiased)


def test_murphys_three_parts_by_hand():
    # Two values of the score: nothing differs inside a bin.
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    scores = np.array([0.2, 0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6])
    parts = metrics.brier_decomposition(labels, scores, bins=2)
    assert parts.reliability == pytest.approx((0.05**2 + 0.15**2) / 2)
    assert parts.resolution == pytest.approx(0.25**2)
    assert parts.uncertainty == 0.25
    assert (parts.within_variance, parts.within_covariance) == pytest.approx((0, 0), abs=1e-15)
    # Variance of a share of 1/4 or 3/4 in four rows, with n - 1.
    assert parts.reliability - parts.reliability_debiased == pytest.approx(0.1875 / 3)


def test_the_debiased_error_is_much_nearer_to_the_truth():
    for shift in (0.0, 0.03):
        plain, debiased = [], []
        for seed in range(60):
            labels, scores = calibrated(1500, seed, shift)
            plain.append(metrics.ece(labels, scores))
            debiased.append(metrics.ece_debiased(labels, scores))
        assert np.mean(plain) > shift + 0.01
        assert abs(np.mean(debiased) - shift) < 0.6 * abs(np.mean(plain) - shift)


@pytest.mark.parametrize("shift", [0.0, 0.03])
def test_reliability_has_no_bias(shift):
    found = np.array([metrics.reliability(*calibrated(600, seed, shift)) for seed in range(400)])
    error = found.std() / np.sqrt(found.size)
    assert abs(found.mean() - shift**2) < 4 * error
    plain = [
        metrics.brier_decomposition(*calibrated(600, seed, shift)).reliability
        for seed in range(100)
    ]
    assert np.mean(plain) - shift**2 > 20 * error


@pytest.mark.parametrize("name", ["ece_debiased", "reliability"])
def test_order_of_rows_has_no_influence(name):
    labels, scores = calibrated(500, 3)
    places = np.random.default_rng(0).permutation(500)
    metric = getattr(metrics, name)
    assert metric(labels[places], scores[places]) == pytest.approx(metric(labels, scores))


def test_the_curve_has_wilson_intervals():
    labels, scores = calibrated(2000, 5)
    curve = metrics.reliability_curve(labels, scores, bins=10, confidence=0.9)
    assert curve.rows.sum() == 2000
    assert (np.diff(curve.score) > 0).all()
    for share, rows, low, high in zip(curve.share, curve.rows, curve.low, curve.high, strict=True):
        tested = binomtest(round(share * rows), int(rows)).proportion_ci(0.9, method="wilson")
        assert (low, high) == pytest.approx((tested.low, tested.high))


def test_the_curve_of_few_or_equal_scores():
    curve = metrics.reliability_curve([True, False, True], [0.5, 0.5, 0.5])
    assert (curve.score.tolist(), curve.rows.tolist()) == ([0.5], [3])
    curve = metrics.reliability_curve([False, False, True], [0.1, 0.2, 0.9], bins=3)
    assert curve.low.tolist()[:2] == [0, 0]
    assert curve.high[2] == 1
    assert ((curve.low <= curve.share) & (curve.share <= curve.high)).all()


def test_the_normal_distribution_function():
    values = np.linspace(-6, 6, 41)
    assert normal_cdf(values) == pytest.approx(norm.cdf(values), rel=1e-12)
