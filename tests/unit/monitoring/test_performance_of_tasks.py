"""Performance of multiclass models and of regressions, from stored columns."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.errors import DataError
from aios_platform.metrics import evaluate
from aios_platform.monitoring.performance import PerformanceStatus, measure, restate
from tests.unit.monitoring.test_performance import KNOWN, LABEL, MATURE, ROWS, WINDOW

COLOURS = AnswerSchema(task="multiclass_classification", classes=("red", "green", "blue"))
SPEND = AnswerSchema(task="regression", quantiles=(0.1, 0.9))
GENERATOR = np.random.default_rng(0)
CODES = GENERATOR.integers(0, 3, ROWS)
VALUES = GENERATOR.normal(5, 2, ROWS)


def predictions(answers, columns):
    found = dict(zip(answers.columns, np.asarray(columns, dtype=np.float32).T, strict=True))
    return pa.table({"flight": np.arange(ROWS), "model_version": ["3"] * ROWS, **found})


def truth(labels):
    known = pa.array([WINDOW.start + timedelta(hours=1)] * ROWS, KNOWN)
    return pa.table({"flight": np.arange(ROWS), "late": labels, "landed_at": known})


def measured(answers, metric, made, facts, **more):
    return measure(
        model="toy", window=WINDOW, predictions=made, truth=facts, row_id="flight", label=LABEL,
        metric=metric, as_of=MATURE, resamples=200, answers=answers, **more,
    )  # fmt: skip


def likely(codes):
    odds = GENERATOR.random((codes.size, 3)) + np.eye(3)[codes] / 2
    return odds / odds.sum(axis=1, keepdims=True)


def words(codes):
    return pa.array([COLOURS.classes[code] for code in codes])


CHANCES = likely(CODES)
ESTIMATES = np.column_stack([VALUES + GENERATOR.normal(0, 1, ROWS), VALUES - 1, VALUES + 1])


def test_classes_are_matched_by_name_and_measured_by_code():
    report = measured(COLOURS, "accuracy", predictions(COLOURS, CHANCES), truth(words(CODES)))
    assert report.status is PerformanceStatus.MEASURED
    expected = evaluate(CODES, CHANCES.astype(np.float32), task=COLOURS.task)
    assert report.metrics == pytest.approx(expected)
    assert report.low < report.metrics["accuracy"] < report.high
    assert report.mean_labels["probability_green"] == (CODES == 1).mean()
    assert sum(report.mean_answers.values()) == pytest.approx(1)
    assert report.base_rate is None


def test_a_class_without_rows_leaves_out_only_the_metrics_that_need_it():
    codes = np.minimum(CODES, 1)
    report = measured(COLOURS, "accuracy", predictions(COLOURS, CHANCES), truth(words(codes)))
    assert "log_loss" in report.metrics
    assert not {"roc_auc", "macro_f1"} & set(report.metrics)
    report = measured(COLOURS, "roc_auc", predictions(COLOURS, CHANCES), truth(words(codes)))
    assert report.status is PerformanceStatus.NOT_ENOUGH_DATA


def test_a_class_told_two_ways_is_left_out_and_a_stranger_is_an_error():
    facts = truth(words(CODES))
    other = truth(words((CODES + 1) % 3)).slice(0, 5)
    made = predictions(COLOURS, CHANCES)
    report = measured(COLOURS, "accuracy", made, pa.concat_tables([facts, other]))
    assert (report.contradictory_labels, report.matched) == (5, ROWS - 5)
    with pytest.raises(DataError, match="'mauve' is none of the declared classes"):
        measured(COLOURS, "accuracy", made, truth(pa.array(["mauve"] * ROWS)))


@pytest.mark.parametrize("metric", ["r2", "mae", "rmse"])
def test_a_regression_is_measured_with_its_quantiles(metric):
    inside = np.arange(ROWS) % 2 == 0
    made = predictions(SPEND, ESTIMATES)
    report = measured(
        SPEND, metric, made, truth(VALUES), slices={"even=1": inside}, min_slice_rows=100
    )
    assert report.metrics["mae"] == pytest.approx(np.abs(ESTIMATES[:, 0] - VALUES).mean(), rel=1e-5)
    assert report.low < report.metrics[metric] < report.high
    assert report.metrics["interval_coverage"] == 1
    assert report.metrics["coverage_0.1"] == 0
    assert report.mean_labels == {"value": pytest.approx(VALUES.mean())}
    assert report.by_slice["even=1"].rows == inside.sum()
    corrected = truth(VALUES + 1)
    again = restate(report, measured(SPEND, metric, made, corrected))
    assert again.revision == 2


def test_whole_numbers_are_labels_of_a_regression():
    whole = VALUES.round().astype(np.int64)
    report = measured(SPEND, "mae", predictions(SPEND, ESTIMATES), truth(whole))
    assert report.status is PerformanceStatus.MEASURED
