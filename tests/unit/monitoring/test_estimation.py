"""Estimates without labels, held against labels that were drawn from known chances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.errors import MetricError
from aios_platform.metrics import evaluate, roc_auc
from aios_platform.monitoring.estimation import (
    ESTIMATED,
    Estimate,
    _expected_auc,
    calibrate,
    estimate,
    score_estimate,
)


def world(seed, rows=6000, spread=1.2, shift=-1.5, intercept=0.0, slope=1.0):
    """Scores, and outcomes whose logit is intercept + slope · logit(score)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(shift, spread, rows)
    chances = 1 / (1 + np.exp(-(intercept + slope * logits)))
    return 1 / (1 + np.exp(-logits)), generator.random(rows) < chances


def estimated(scores, calibration, seed=0, **more) -> Estimate:
    return estimate(
        scores, calibration, model_version="3", predictions_digest="d" * 64, seed=seed, **more
    )


def fitted(**more):
    scores, truth = world(99, rows=20_000, **more)
    return calibrate(truth, scores, windows=("2013-09",))


@pytest.mark.parametrize(("intercept", "slope"), [(0, 1), (0.7, 1), (-0.4, 0.6), (0, 1.8)])
def test_calibration_finds_what_the_scores_mean(intercept, slope):
    found = fitted(intercept=intercept, slope=slope)
    assert found.intercept == pytest.approx(intercept, abs=4 * found.covariance[0] ** 0.5)
    assert found.slope == pytest.approx(slope, abs=4 * found.covariance[2] ** 0.5)


def test_nineteen_of_twenty_measured_values_lie_in_their_interval():
    calibration = fitted(intercept=0.3, slope=0.8)
    inside = dict.fromkeys(ESTIMATED, 0)
    for seed in range(60):
        scores, truth = world(seed, rows=1500, intercept=0.3, slope=0.8)
        found = estimated(scores, calibration, seed=seed)
        for name, score in score_estimate(found, evaluate(truth, scores)).items():
            inside[name] += score.inside
    assert all(count >= 52 for count in inside.values()), inside


def test_it_follows_harder_rows_which_a_baseline_does_not():
    calibration = fitted()
    scores, truth = world(1, spread=0.4)
    easy = roc_auc(world(99, rows=20_000)[1], world(99, rows=20_000)[0])
    found = estimated(scores, calibration)
    measured = score_estimate(found, evaluate(truth, scores))["roc_auc"]
    assert measured.inside
    assert abs(measured.error) < 0.02 < easy - measured.measured


def test_a_changed_world_lies_outside_which_is_how_it_shows():
    scores, truth = world(1, intercept=1.0)
    found = estimated(scores, fitted())
    assert not score_estimate(found, evaluate(truth, scores))["log_loss"].inside


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.05, 0.95)), min_size=2, max_size=30),
)
def test_the_expected_auc_is_that_of_every_pair(rows):
    values = np.array(sorted(score / 10 for score, _ in rows))
    chances = np.array([chance for _, chance in rows])
    won = total = 0.0
    for i in range(len(rows)):
        for j in range(len(rows)):
            if i != j:
                weight = chances[i] * (1 - chances[j])
                won += weight * ((values[i] > values[j]) + (values[i] == values[j]) / 2)
                total += weight
    assert _expected_auc(values, chances) == pytest.approx(won / total)


def test_it_is_the_same_every_time_and_survives_json():
    scores, _ = world(5)
    calibration = fitted()
    found = estimated(scores, calibration)
    assert estimated(scores[::-1], calibration) == found
    assert Estimate.model_validate_json(found.model_dump_json()) == found
    assert all(m.low <= m.value <= m.high for m in found.metrics.values())


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([True, False] * 20, [0.5, 0.4] * 20),
        ([True] * 200, [0.5, 0.4] * 100),
        ([True, False] * 100, [0.5] * 200),
        ([True, False] * 100, [0.5, np.nan] * 100),
    ],
    ids=["few rows", "one class", "equal scores", "nan"],
)
def test_what_cannot_be_fitted_is_refused(labels, scores):
    with pytest.raises(MetricError):
        calibrate(labels, scores, windows=())


def test_outcomes_that_the_scores_tell_apart_perfectly_do_not_diverge():
    scores = np.linspace(0.01, 0.99, 400)
    found = calibrate(scores > 0.5, scores, windows=())
    assert np.isfinite([found.intercept, found.slope, *found.covariance]).all()
    assert estimated(scores, found).metrics["roc_auc"].value > 0.99


@pytest.mark.parametrize("scores", [[], [0.5] * 99, [0.5] * 200 + [np.nan], [1.2] * 200])
def test_too_few_or_impossible_scores_give_no_estimate(scores):
    with pytest.raises(MetricError):
        estimated(scores, fitted())


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_that_are_certain_are_no_error(score):
    scores = np.append(world(1)[0], [score] * 50)
    assert np.isfinite(estimated(scores, fitted()).metrics["log_loss"].value)
