"""Metrics equal scikit-learn's, do not depend on the order of rows, and are never NaN."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from aios_platform import metrics
from aios_platform.errors import MetricError

# Few distinct values, so that ties are common.
SCORES = st.integers(0, 8).map(lambda n: n / 8)
ROWS = st.lists(st.tuples(st.booleans(), SCORES), min_size=2, max_size=60).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_equals_scikit_learn(rows):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    found = metrics.evaluate(labels, scores)
    assert found["roc_auc"] == pytest.approx(oracle.roc_auc_score(labels, scores))
    assert found["pr_auc"] == pytest.approx(oracle.average_precision_score(labels, scores))
    assert found["brier"] == pytest.approx(oracle.brier_score_loss(labels, scores))
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(labels, scores >= 0.5))
    assert metrics.accuracy(labels, scores, threshold=0.25) == pytest.approx(
        oracle.accuracy_score(labels, scores >= 0.25)
    )
    assert found["log_loss"] == pytest.approx(
        oracle.log_loss(labels, scores.astype(np.float32)), rel=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_order_of_rows_has_no_influence(rows, random):
    shuffled = random.sample(rows, len(rows))
    first, second = (
        metrics.evaluate(*(np.array(column) for column in zip(*some, strict=True)))
        for some in (rows, shuffled)
    )
    assert first == pytest.approx(second)


def test_calibration_error_by_hand():
    # Two bins of two rows: mean score 0.2 against no positive, 0.7 against one of two.
    assert metrics.ece([0, 0, 0, 1], [0.1, 0.3, 0.6, 0.8], bins=2) == pytest.approx(0.2)


def test_constant_scores():
    labels = np.arange(100) < 30
    found = metrics.evaluate(labels, np.full(100, 0.4))
    assert found["roc_auc"] == 0.5
    assert found["pr_auc"] == pytest.approx(0.3)
    assert found["ece"] == pytest.approx(0.1)


def test_certain_and_wrong_is_bad_but_finite():
    found = metrics.evaluate([True, False], np.array([0.0, 1.0], dtype=np.float32))
    assert all(math.isfinite(value) for value in found.values())
    assert found["log_loss"] > 15


@pytest.mark.parametrize(
    ("labels", "scores", "says"),
    [
        ([True, False], [0.5, math.nan], "not probabilities"),
        ([True, False], [0.5, math.inf], "not probabilities"),
        ([True, False], [0.5, -0.1], "not probabilities"),
        ([True, False], [0.5, 1.1], "not probabilities"),
        ([True, False], [0.5], "shape"),
        ([True, False], [[0.5], [0.4]], "shape"),
        ([True, False], ["a", "b"], "not numbers"),
        ([True, False], None, "shape"),
        ([True, True], [0.5, 0.4], "both classes"),
        ([False, False], [0.5, 0.4], "both classes"),
        ([], [], "shape"),
        ([True, None], [0.5, 0.4], "neither 0 nor 1"),
        ([1.0, math.nan], [0.5, 0.4], "neither 0 nor 1"),
        ([0, 2], [0.5, 0.4], "neither 0 nor 1"),
        (["yes", "no"], [0.5, 0.4], "neither 0 nor 1"),
        ([[1], [0, 1]], [0.5, 0.4], "not an array"),
    ],
)
def test_refuses_what_has_no_honest_figure(labels, scores, says):
    for name in metrics.METRICS:
        if name not in metrics.ON_REQUEST:
            with pytest.raises(MetricError, match=says):
                getattr(metrics, name)(labels, scores)
        with pytest.raises(MetricError, match=says):
            metrics.evaluate(labels, scores, [name])


def test_metrics_by_group_leave_out_groups_of_one_class():
    labels = np.array([True, False, True, False, True, True])
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.5, 0.6])
    found = metrics.evaluate_by(labels, scores, ["b", "b", "a", "a", "c", "c"])
    assert list(found) == ["a", "b"]
    assert (found["a"]["roc_auc"], found["b"]["roc_auc"]) == (0, 1)
    with pytest.raises(MetricError, match="groups have the shape"):
        metrics.evaluate_by(labels, scores, ["a"])


@pytest.mark.parametrize("percent", [1, 2, 5, 10])
def test_precision_of_an_alert_budget_is_its_mean_over_orders_of_ties(percent):
    generator = np.random.default_rng(percent)
    truth = generator.random(230) < 0.3
    scores = generator.integers(0, 6, 230) / 10
    budget = max(1, 230 * percent // 100)
    drawn = []
    for _ in range(3000):
        order = generator.permutation(230)
        best = order[np.argsort(-scores[order], kind="stable")[:budget]]
        drawn.append(truth[best].mean())
    name = f"precision_at_{percent}"
    found = metrics.evaluate(truth, scores, [name])[name]
    assert found == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / np.sqrt(3000) + 1e-12)
    order = generator.permutation(230)
    assert metrics.evaluate(truth[order], scores[order], [name])[name] == found
    assert name not in metrics.evaluate(truth, scores), "only where a policy names it"


def test_a_budget_is_never_less_than_one_row():
    found = metrics.evaluate([True, False], [0.9, 0.1], ["precision_at_1"])
    assert found == {"precision_at_1": 1.0}
