"""Metrics of several classes and of numbers equal scikit-learn's, or refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from aios_platform.contracts.policy import METRIC_NAMES, METRICS_BY_TASK
from aios_platform.errors import MetricError
from aios_platform.metrics import (
    LESS_IS_BETTER,
    METRICS_OF,
    ON_REQUEST,
    ece,
    evaluate,
    evaluate_by,
    gain,
    reliability,
)

MULTICLASS = "multiclass_classification"
SEEDS = st.integers(0, 10_000)


def three_classes(seed, rows=60, classes=3):
    """Codes of every class, and rows of probabilities in float32, as a softmax gives them."""
    generator = np.random.default_rng(seed)
    codes = np.append(np.arange(classes), generator.integers(0, classes, rows - classes))
    logits = (generator.normal(size=(rows, classes)) + 1.2 * np.eye(classes)[codes]).round(1)
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return codes, scores.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(2, 5))
def test_several_classes_equal_scikit_learn(seed, classes):
    codes, scores = three_classes(seed, classes=classes)
    found = evaluate(codes, scores, task=MULTICLASS)
    answered = scores.argmax(axis=1)
    exact = scores.astype(np.float64) / scores.astype(np.float64).sum(axis=1, keepdims=True)
    areas = [oracle.roc_auc_score(codes == k, exact[:, k]) for k in range(classes)]
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(codes, answered))
    assert found["macro_f1"] == pytest.approx(oracle.f1_score(codes, answered, average="macro"))
    assert found["log_loss"] == pytest.approx(oracle.log_loss(codes, exact), rel=1e-5)
    assert found["roc_auc"] == pytest.approx(np.mean(areas), abs=2e-3)
    squares = ((np.eye(classes)[codes] - exact) ** 2).sum(axis=1).mean()
    assert found["brier"] == pytest.approx(squares, rel=1e-5)
    if classes > 2:
        area = oracle.roc_auc_score(codes, exact, multi_class="ovr", average="macro")
        assert found["roc_auc"] == pytest.approx(area, abs=2e-3)
        assert found["brier"] == pytest.approx(oracle.brier_score_loss(codes, exact), rel=1e-5)


def test_calibration_of_the_top_label_is_that_of_being_right():
    codes, scores = three_classes(1, rows=500)
    right, top = scores.argmax(axis=1) == codes, scores.max(axis=1)
    found = evaluate(codes, scores, ["ece", "reliability"], task=MULTICLASS)
    assert found == pytest.approx({"ece": ece(right, top), "reliability": reliability(right, top)})


def test_two_classes_as_multiclass_agree_with_the_binary_task():
    codes, scores = three_classes(2, rows=300, classes=2)
    positive = 0.999 * scores[:, 1].astype(float)  # no row is exactly on the fence
    scores = np.stack([1 - positive, positive], axis=1)
    several = evaluate(codes, scores, task=MULTICLASS)
    binary = evaluate(codes, scores[:, 1])
    for name in ("accuracy", "roc_auc", "log_loss"):
        assert several[name] == pytest.approx(binary[name]), name
    assert several["brier"] == pytest.approx(2 * binary["brier"])


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_numbers_equal_scikit_learn(seed, centre, scale):
    generator = np.random.default_rng(seed)
    targets = centre + scale * generator.normal(size=50)
    predictions = targets + scale * generator.normal(size=50)
    found = evaluate(targets, predictions, task="regression")
    assert found["mae"] == pytest.approx(oracle.mean_absolute_error(targets, predictions))
    assert found["rmse"] == pytest.approx(oracle.root_mean_squared_error(targets, predictions))
    assert found["r2"] == pytest.approx(oracle.r2_score(targets, predictions))


ROW = [0.2, 0.3, 0.5]


@pytest.mark.parametrize(
    ("codes", "scores", "says"),
    [
        ([0, 1], [ROW, [0.2, 0.3, math.nan]], "not probabilities"),
        ([0, 1], [ROW, [0.6, 0.6, -0.2]], "not probabilities"),
        ([0, 1], [ROW, [0.2, 0.3, 0.4]], "do not sum to 1"),
        ([0, 1], [[2.0, 3.0, 5.0], ROW], "not probabilities"),
        ([0, 1], [0.4, 0.6], "shape"),
        ([0, 1], [ROW], "shape"),
        ([0, 1], [[1.0], [1.0]], "two classes or more"),
        ([0, 3], [ROW, ROW], "3 columns"),
        ([0, -1], [ROW, ROW], "not class codes"),
        ([0, 0.5], [ROW, ROW], "not class codes"),
        ([0, math.nan], [ROW, ROW], "not class codes"),
        ([0, math.inf], [ROW, ROW], "not class codes"),
        (["a", "b"], [ROW, ROW], "not class codes"),
        ([1, 1], [ROW, ROW], "at least two classes"),
        ([], np.empty((0, 3)), "shape"),
    ],
)
def test_several_classes_refuse_what_has_no_honest_figure(codes, scores, says):
    for name in METRICS_OF[MULTICLASS]:
        with pytest.raises(MetricError, match=says):
            evaluate(codes, scores, [name], task=MULTICLASS)


def test_averages_over_classes_need_every_class():
    codes, scores = [0, 1, 0], [ROW, ROW, ROW]
    for name in ("roc_auc", "macro_f1"):
        with pytest.raises(MetricError, match="No row is of class 2"):
            evaluate(codes, scores, [name], task=MULTICLASS)
    assert evaluate(codes, scores, ["accuracy"], task=MULTICLASS) == {"accuracy": 0}


@pytest.mark.parametrize(
    ("targets", "predictions", "says"),
    [
        ([1.0, 2.0], [1.0, math.nan], "not finite"),
        ([1.0, math.inf], [1.0, 2.0], "not finite"),
        ([1.0, None], [1.0, 2.0], "not finite"),
        ([1.0, 2.0], [1.0, 1e200], "not finite"),
        ([1.0, 2.0], [1.0], "shape"),
        ([1.0, 2.0], [[1.0], [2.0]], "shape"),
        ([1.0, 2.0], ["x", "y"], "not numbers"),
        ([], [], "shape"),
    ],
)
def test_numbers_refuse_what_has_no_honest_figure(targets, predictions, says):
    for name in METRICS_OF["regression"]:
        with pytest.raises(MetricError, match=says):
            evaluate(targets, predictions, [name], task="regression")


def test_r2_needs_labels_that_differ():
    with pytest.raises(MetricError, match="r2 is undefined"):
        evaluate([3.0, 3.0], [3.0, 4.0], task="regression")
    assert evaluate([3.0, 3.0], [3.0, 4.0], ["mae"], task="regression") == {"mae": 0.5}


@pytest.mark.parametrize(
    ("task", "name"), [(t, n) for t, names in METRICS_OF.items() for n in names]
)
def test_gain_is_positive_for_the_better_model(task, name):
    generator = np.random.default_rng(0)
    if task == "regression":
        labels = generator.normal(size=4000)
        good, bad = (labels + generator.normal(0, noise, 4000) for noise in (0.1, 1.0))
    else:
        labels = generator.integers(0, 2 if task == "binary_classification" else 3, 4000)
        truth = np.eye(3)[labels]
        good = 0.9 * truth + 0.1 / 3
        bad = 0.5 * good + 0.5 * generator.dirichlet([0.3] * 3, 4000)
        if task == "binary_classification":
            good, bad = good[:, 1], bad[:, 1]
            if name in ON_REQUEST:  # both are right about the rows they are surest of
                bad = generator.random(4000)
        # The truth is right more often than 0.93 says: only what is worse still than that is bad.
        good = np.where(good > 0.5, 0.999, 0.001) if good.ndim == 1 else truth
    first, second = (evaluate(labels, s, [name], task=task)[name] for s in (good, bad))
    assert gain(name, first, second) > 0 > gain(name, second, first)


def test_groups_that_allow_no_metric_are_left_out():
    found = evaluate_by([1.0, 2.0, 5.0, 5.0], [1.0, 2.0, 5.0, 5.0], list("aabb"), task="regression")
    assert found == {"a": {"rmse": 0, "mae": 0, "r2": 1}}
    codes, scores = three_classes(0, rows=40)
    groups = np.where(codes == 2, "late", "early")
    groups[:10] = "all"
    assert list(evaluate_by(codes, scores, groups, task=MULTICLASS)) == ["all"]


def test_the_declaration_knows_the_same_metrics():
    assert {task: set(names) for task, names in METRICS_OF.items()} == {
        task: set(names) for task, names in METRICS_BY_TASK.items()
    }
    assert set(METRIC_NAMES) > LESS_IS_BETTER


def test_a_metric_of_another_task_is_named():
    with pytest.raises(MetricError, match=r"no metric 'r2' .* macro_f1"):
        evaluate([0, 1, 2], [ROW] * 3, ["r2"], task=MULTICLASS)
