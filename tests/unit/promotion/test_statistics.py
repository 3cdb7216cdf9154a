"""What may be concluded from a paired difference, and from many of them."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from aios_platform.contracts.decisions import Outcome
from aios_platform.errors import MetricError
from aios_platform.promotion.statistics import (
    delong,
    detectable,
    holm,
    non_inferiority,
    p_inferior,
    p_non_inferior,
    p_superior,
    superiority,
)
from aios_platform.resampling import Interval, gain_interval

P_VALUES = st.lists(st.floats(0, 1), max_size=12)


def rejected_by_steps(raw, alpha):
    """Holm's procedure as he states it: from the smallest p-value on, until one does not reject."""
    found = set()
    for step, place in enumerate(sorted(range(len(raw)), key=raw.__getitem__)):
        if not raw[place] <= alpha / (len(raw) - step):
            break
        found.add(place)
    return found


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_his_steps_reject(raw, alpha):
    adjusted = holm(raw)
    assume(not np.isclose(adjusted, alpha, rtol=1e-9).any())
    assert set(np.flatnonzero(adjusted <= alpha)) == rejected_by_steps(raw, alpha)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(P_VALUES, st.randoms(use_true_random=False))
def test_holm_keeps_the_order_and_never_lowers(raw, random):
    adjusted = holm(raw)
    assert (adjusted >= np.array(raw)).all()
    assert (adjusted <= 1).all()
    order = np.argsort(raw, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()
    places = random.sample(range(len(raw)), len(raw))
    assert holm([raw[place] for place in places]).tolist() == [adjusted[place] for place in places]
    if raw:
        assert adjusted.min() == min(1, len(raw) * min(raw))


@pytest.mark.parametrize("raw", [[0.1, math.nan], [-0.1], [1.1], [math.inf], [[0.1, 0.2]]])
def test_holm_refuses_what_is_no_probability(raw):
    with pytest.raises(MetricError, match="not all probabilities"):
        holm(raw)


def test_holm_holds_its_level_however_the_tests_depend_on_each_other():
    generator = np.random.default_rng(0)
    rounds, tests, false = 2000, 8, 0
    for _ in range(rounds):
        shared = generator.normal()
        z = math.sqrt(0.7) * shared + math.sqrt(0.3) * generator.normal(size=tests)
        false += bool((holm(norm.cdf(z)) <= 0.05).any())
    # At most 5 %: 100 expected in the worst case, and four standard errors.
    assert false <= 100 + 4 * math.sqrt(95)


@pytest.mark.parametrize(
    ("low", "high", "not_worse", "better"),
    [
        (0.01, 0.03, Outcome.PASS, Outcome.PASS),
        (0.0, 0.03, Outcome.PASS, Outcome.UNKNOWN),
        (-0.005, 0.01, Outcome.PASS, Outcome.UNKNOWN),
        (-0.006, 0.01, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (-0.006, -0.005, Outcome.UNKNOWN, Outcome.FAIL),
        (-0.02, -0.006, Outcome.FAIL, Outcome.FAIL),
        (0.0, 0.0, Outcome.PASS, Outcome.FAIL),
    ],
)
def test_interval_against_the_margin(low, high, not_worse, better):
    found = Interval((low + high) / 2, low, high, 0.95, 2000, 100)
    assert non_inferiority(found, margin=0.005) is not_worse
    assert superiority(found) is better


@pytest.mark.parametrize("ends", [(math.nan, 1.0), (-1.0, math.nan), (math.nan, math.nan)])
def test_what_is_not_a_number_is_unknown(ends):
    found = Interval(math.nan, *ends, 0.95, 0, 0)
    assert non_inferiority(found, 0.005) is Outcome.UNKNOWN
    assert superiority(found) is Outcome.UNKNOWN


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.05))
def test_a_model_is_never_shown_to_be_better_or_worse_than_itself(seed, margin):
    generator = np.random.default_rng(seed)
    labels = np.append([True, True, False, False], generator.random(60) < 0.4)
    scores = generator.random(64).round(1)
    for found in (
        delong(labels, scores, scores),
        gain_interval("roc_auc", labels, scores, scores, seed=seed, resamples=50),
        gain_interval("log_loss", labels, scores, scores, seed=seed, resamples=50),
    ):
        assert found.estimate == 0
        assert superiority(found) is not Outcome.PASS
        assert non_inferiority(found, margin) is Outcome.PASS
        assert p_superior(found) == 1
        assert p_inferior(found, margin) == 1
        if margin > 0:
            assert p_non_inferior(found, margin) < 0.05


def test_p_values_say_what_the_outcomes_say():
    generator = np.random.default_rng(4)
    labels = generator.random(3000) < 0.3
    signal = generator.normal(size=3000) + labels
    better, worse = (
        1 / (1 + np.exp(-signal - generator.normal(0, noise, 3000))) for noise in (0.2, 0.8)
    )
    for own, other in ((better, worse), (worse, better), (better, better**1.01)):
        for found in (
            delong(labels, own, other),
            gain_interval("roc_auc", labels, own, other, seed=0, resamples=500),
        ):
            for margin in (0.0, 0.01, 0.1):
                outcome = non_inferiority(found, margin)
                assert (p_non_inferior(found, margin) < 0.03) == (outcome is Outcome.PASS) or (
                    found.standard_error < 1e-4
                )
                assert (p_inferior(found, margin) < 0.03) == (outcome is Outcome.FAIL)


def test_the_detectable_difference_is_found_with_the_stated_power():
    """Many exams on which the truth is better by exactly what one such exam can detect."""
    rows, noise, rounds = 400, 1.0, 400
    generator = np.random.default_rng(2)
    error = noise / math.sqrt(rows)
    one = Interval(0.0, -1.96 * error, 1.96 * error, 0.95, 0, rows, standard_error=error)
    shift = detectable(one, power=0.8)
    assert shift == pytest.approx((1.959964 + 0.841621) * error, rel=1e-6)
    found = 0
    for _ in range(rounds):
        mean = (generator.normal(shift, noise, rows)).mean()
        found += mean - 1.959964 * error > 0
    assert found / rounds == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / rounds))
