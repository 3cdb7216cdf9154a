"""DeLong and McNemar against their definitions, against others' code, and against the bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chi2
from sklearn.metrics import roc_auc_score

from aios_platform.contracts.decisions import Outcome
from aios_platform.errors import MetricError
from aios_platform.metrics import binary, multiclass
from aios_platform.promotion.statistics import delong, mcnemar, non_inferiority, superiority
from aios_platform.resampling import gain_interval

SEEDS = st.integers(0, 100_000)


def contest(seed, rows=300, digits=2, noise=(0.3, 0.6)):
    """Labels with at least two of each class, and two models' scores, with ties."""
    generator = np.random.default_rng(seed)
    labels = np.append([True, True, False, False], generator.random(rows - 4) < 0.3)
    signal = generator.normal(size=rows) + labels
    return labels, *(
        (1 / (1 + np.exp(-signal - generator.normal(0, each, rows)))).round(digits)
        for each in noise
    )


def by_definition(labels, scores, reference):
    """DeLong's estimator pair by pair, in O(positives x negatives)."""
    placed = []
    for values in (scores, reference):
        positive, negative = values[labels][:, None], values[~labels][None, :]
        placed.append((positive > negative) + 0.5 * (positive == negative))
    of_positives = np.stack([pairs.mean(axis=1) for pairs in placed])
    of_negatives = np.stack([pairs.mean(axis=0) for pairs in placed])
    covariance = (
        np.cov(of_positives) / of_positives.shape[1] + np.cov(of_negatives) / of_negatives.shape[1]
    )
    contrast = np.array([1, -1])
    return contrast @ of_positives.mean(axis=1), math.sqrt(contrast @ covariance @ contrast)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(6, 80), st.integers(0, 3))
def test_delong_equals_its_definition(seed, rows, digits):
    labels, scores, reference = contest(seed, rows, digits)
    found = delong(labels, scores, reference)
    difference, error = by_definition(labels, scores, reference)
    assert found.estimate == pytest.approx(difference, abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-9)
    areas = [roc_auc_score(labels, each) for each in (scores, reference)]
    assert found.estimate == pytest.approx(areas[0] - areas[1], abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_swapping_the_models_turns_delong_around(seed):
    labels, scores, reference = contest(seed)
    there, back = delong(labels, scores, reference), delong(labels, reference, scores)
    assert (back.estimate, back.low, back.high) == pytest.approx(
        (-there.estimate, -there.high, -there.low)
    )
    assert back.p_value == pytest.approx(there.p_value)
    assert back.p_at_most(0.01) == pytest.approx(there.p_at_least(-0.01))


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([np.sqrt, np.square, lambda s: s / 3 + 0.2, np.sin]))
def test_only_the_ranks_count_for_delong(seed, monotone):
    labels, scores, reference = contest(seed)
    assert delong(labels, monotone(scores), reference) == delong(labels, scores, reference)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_order_of_rows_has_no_influence(seed):
    labels, scores, reference = contest(seed)
    places = np.random.default_rng(seed).permutation(labels.size)
    first = delong(labels, scores, reference)
    second = delong(labels[places], scores[places], reference[places])
    assert (second.estimate, second.standard_error, second.p_value) == pytest.approx(
        (first.estimate, first.standard_error, first.p_value), abs=1e-9
    )


@pytest.mark.parametrize("seed", range(8))
def test_delong_and_the_bootstrap_agree_within_monte_carlo_error(seed):
    rows, resamples = 1500, 2000
    labels, scores, reference = contest(seed, rows)
    formula = delong(labels, scores, reference)
    drawn = gain_interval("roc_auc", labels, scores, reference, seed=seed, resamples=resamples)
    error = formula.standard_error
    assert drawn.estimate == pytest.approx(formula.estimate, abs=1e-12)
    # The standard deviation of n draws errs by 1 / sqrt(2n) of itself; a 2.5 % quantile of a
    # normal by sqrt(0.025 * 0.975 / n) / density. Four of those, and what is not normal.
    assert drawn.standard_error == pytest.approx(error, rel=4 / math.sqrt(2 * resamples) + 0.01)
    quantile = math.sqrt(0.025 * 0.975 / resamples) / 0.0584
    for mine, other in ((drawn.low, formula.low), (drawn.high, formula.high)):
        assert mine == pytest.approx(other, abs=(4 * quantile + 0.05) * error)


def test_delong_holds_its_level():
    outside, rounds = 0, 400
    for seed in range(rounds):
        labels, first, second = contest(seed, rows=250, digits=6, noise=(0.5, 0.5))
        found = delong(labels, first, second)
        outside += not found.low <= 0 <= found.high
    # 20 expected; beyond 4 standard errors lies less than one in ten thousand.
    assert abs(outside - 20) <= 4 * math.sqrt(19)


@pytest.mark.parametrize(
    ("labels", "scores", "reference", "says"),
    [
        ([1, 0, 0], [0.5] * 3, [0.5] * 3, "two of each"),
        ([1, 1, 0], [0.5] * 3, [0.5] * 3, "two of each"),
        ([1, 1, 1], [0.5] * 3, [0.5] * 3, "both classes"),
        ([1, 1, 0, 0], [0.5] * 4, [0.5] * 3, "shape"),
        ([1, 1, 0, 0], [0.5] * 4, [0.5, 0.5, 0.5, math.nan], "not probabilities"),
        ([1, 1, 0, None], [0.5] * 4, [0.5] * 4, "neither 0 nor 1"),
    ],
)
def test_delong_refuses_what_has_no_variance(labels, scores, reference, says):
    with pytest.raises(MetricError, match=says):
        delong(labels, scores, reference)


def answers(better, worse, both=30, neither=20):
    first = [1] * better + [0] * worse + [1] * both + [0] * neither
    second = [0] * better + [1] * worse + [1] * both + [0] * neither
    return first, second


@pytest.mark.parametrize(
    ("better", "worse"), [(0, 0), (1, 0), (5, 2), (12, 12), (20, 4), (13, 12), (60, 40), (400, 300)]
)
def test_mcnemar_equals_scipys_tests(better, worse):
    found = mcnemar(*answers(better, worse))
    exact = better + worse < 25
    if better + worse == 0:
        expected = 1
    elif exact:
        expected = binomtest(better, better + worse).pvalue
    else:
        expected = chi2.sf((abs(better - worse) - 1) ** 2 / (better + worse), 1)
    assert found.p_value == pytest.approx(expected)
    assert found.method.endswith("exact" if exact else "corrected")
    assert found.estimate == (better - worse) / (better + worse + 50)


@given(st.integers(0, 60), st.integers(0, 60))
def test_swapping_the_models_turns_mcnemar_around(better, worse):
    there, back = mcnemar(*answers(better, worse)), mcnemar(*answers(worse, better))
    assert (back.estimate, back.low, back.high) == pytest.approx(
        (-there.estimate, -there.high, -there.low)
    )
    assert back.p_value == there.p_value


def test_mcnemar_of_identical_models():
    found = mcnemar(*answers(0, 0, both=900, neither=100))
    assert (found.estimate, found.p_value) == (0, 1)
    assert superiority(found) is Outcome.UNKNOWN
    assert non_inferiority(found, 0.01) is Outcome.PASS


def test_mcnemar_and_the_bootstrap_agree():
    labels, scores, reference = contest(1, rows=4000, digits=4)
    formula = mcnemar(binary.correct(labels, scores), binary.correct(labels, reference))
    drawn = gain_interval("accuracy", labels, scores, reference, seed=1)
    assert drawn.estimate == pytest.approx(formula.estimate)
    assert drawn.standard_error == pytest.approx(formula.standard_error, rel=0.08)
    assert (drawn.low, drawn.high) == pytest.approx((formula.low, formula.high), abs=6e-3)


def test_mcnemar_takes_any_number_of_classes():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, 2000)
    scores, reference = (
        weight * np.eye(4)[codes] + (1 - weight) * generator.dirichlet([0.3] * 4, 2000)
        for weight in (0.4, 0.2)
    )
    found = mcnemar(multiclass.correct(codes, scores), multiclass.correct(codes, reference))
    assert found.low > 0
    assert found.p_at_most(0) < 1e-6


def test_mcnemar_covers_as_often_as_promised():
    generator = np.random.default_rng(3)
    outside, rounds, rows = 0, 600, 120
    for _ in range(rounds):
        kind = generator.choice(4, rows, p=[0.08, 0.04, 0.7, 0.18])
        found = mcnemar((kind == 0) | (kind == 2), (kind == 1) | (kind == 2))
        outside += not found.low <= 0.04 <= found.high
    assert outside <= 30 + 4 * math.sqrt(28.5)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [([1, 0], [1], "2 and 1 answers"), ([1, 2], [1, 0], "neither"), ([], [], "shape")],
)
def test_mcnemar_refuses_what_is_not_paired(first, second, says):
    with pytest.raises(MetricError, match=says):
        mcnemar(first, second)


def test_few_positives_widen_the_interval():
    """With five positives the normal interval is too short; Student's t is nearer to its level."""
    level, student, normal, rounds = 0.05, 0, 0, 1500
    for seed in range(rounds):
        generator = np.random.default_rng(seed)
        labels = np.arange(205) < 5
        signal = generator.normal(size=205) + labels
        pair = (1 / (1 + np.exp(-signal - generator.normal(0, 0.5, 205))) for _ in range(2))
        found = delong(labels, *pair)
        student += not found.low <= 0 <= found.high
        normal += abs(found.estimate) > 1.959964 * found.standard_error
    assert student / rounds <= level + 4 * math.sqrt(level * (1 - level) / rounds)
    assert student < normal / 1.5
    assert found.freedom < 10
    assert delong(*contest(0, rows=5000)).freedom > 500
