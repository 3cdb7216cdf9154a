"""Tests and effect sizes, held against SciPy and against what chance does."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.monitoring.significance import (
    benjamini_hochberg,
    chi_squared,
    jensen_shannon,
    kolmogorov_smirnov,
    wasserstein,
)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("sizes", [(5000, 5000), (400, 5000), (60, 200)])
def test_kolmogorov_smirnov_is_scipys(shift, sizes):
    generator = np.random.default_rng(3)
    one, other = generator.normal(shift, 1, sizes[0]), generator.normal(0, 1, sizes[1])
    expected = scipy.stats.ks_2samp(one, other)
    distance, p = kolmogorov_smirnov(one, other)
    assert distance == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, rel=0.25, abs=1e-9)


def test_chi_squared_is_scipys():
    one, other = np.array([120, 80, 40, 60]), np.array([900, 950, 420, 600])
    expected = scipy.stats.chi2_contingency(np.stack([one, other]), correction=False)
    assert chi_squared(one, other) == pytest.approx(expected.pvalue)
    # A category of a row or two is no evidence of anything.
    assert chi_squared(np.append(one, 1), np.append(other, 0)) > 0.5 * expected.pvalue


def test_a_test_without_drift_rejects_as_often_as_it_says():
    generator = np.random.default_rng(0)
    numbers, counts = [], []
    for _ in range(300):
        numbers.append(kolmogorov_smirnov(*generator.normal(size=(2, 800)))[1])
        counts.append(chi_squared(*(generator.multinomial(800, [0.5, 0.3, 0.2], size=2))))
    for p_values in (numbers, counts):
        assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.085


@pytest.mark.parametrize("empty", [np.empty(0), np.array([])])
def test_nothing_to_compare_is_no_evidence(empty):
    assert kolmogorov_smirnov(empty, np.arange(9.0)) == (0.0, 1.0)
    assert chi_squared(np.zeros(3, int), np.array([1, 2, 3])) == 1.0
    assert chi_squared(np.array([5, 0]), np.array([9, 0])) == 1.0
    assert wasserstein(np.arange(9.0), empty) is None
    assert wasserstein(np.arange(9.0), np.full(5, 1.0)) is None
    assert jensen_shannon(np.zeros(3, int), np.array([1, 2, 3])) == 0.0


def test_effect_sizes_have_their_units():
    generator = np.random.default_rng(0)
    reference = generator.normal(0, 3, 20_000)
    assert wasserstein(reference + 6, reference) == pytest.approx(2, abs=0.02)
    assert jensen_shannon(np.array([10, 0]), np.array([0, 7])) == pytest.approx(1)
    assert jensen_shannon(np.array([10, 20]), np.array([1, 2])) == pytest.approx(0, abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_are_scipys(p_values):
    adjusted = benjamini_hochberg({str(n): p for n, p in enumerate(p_values)})
    expected = scipy.stats.false_discovery_control(p_values)
    assert list(adjusted.values()) == pytest.approx(list(expected))
    assert list(adjusted) == [str(n) for n in range(len(p_values))]


def test_the_share_of_false_discoveries_is_what_was_asked_for():
    generator = np.random.default_rng(1)
    shares = []
    for _ in range(200):
        truly = generator.random(20) ** 8 / 1e4
        null = generator.random(80)
        p_values = {f"t{n}": p for n, p in enumerate(truly)} | {
            f"n{n}": p for n, p in enumerate(null)
        }
        found = [name for name, p in benjamini_hochberg(p_values).items() if p < 0.1]
        shares.append(sum(name[0] == "n" for name in found) / max(len(found), 1))
    assert np.mean(shares) < 0.1
