"""The gate on multiclass models, regressions with quantiles, and a fixed alert budget."""

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.decisions import Decision, Outcome
from aios_platform.contracts.policy import Gate
from aios_platform.promotion.exam import Exam
from tests.unit.promotion.test_gate import (
    ALIKE,
    EXAM,
    GOOD,
    IDS,
    MONTHS,
    POOR,
    ROWS,
    contender,
    judge,
    outcome,
)

CLASSES = AnswerSchema(task="multiclass_classification", classes=("a", "b", "c"))
LEVELS = (0.1, 0.9)
GENERATOR = np.random.default_rng(4)
CODES = GENERATOR.integers(0, 3, ROWS)
TARGETS = GENERATOR.normal(0, 3, ROWS)


def exam(labels, answers):
    frame = pa.table({"id": IDS, "label": labels, "window": MONTHS})
    return Exam.from_frame(frame, row_id="id", label="label", answers=answers)


def chances(skill, seed):
    odds = np.random.default_rng(seed).random((ROWS, 3)) + skill * np.eye(3)[CODES]
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def spread(noise, seed, width=1.2816):
    value = TARGETS + np.random.default_rng(seed).normal(0, noise, ROWS)
    return np.column_stack([value, value - width * noise, value + width * noise])


@pytest.mark.parametrize("metric", ["accuracy", "log_loss"])
def test_a_multiclass_model_is_judged_by_class_names(metric):
    asked = exam(pa.array([CLASSES.classes[code] for code in CODES]), CLASSES)
    gate = Gate(metric=metric, margin=0.05, guards={}, resamples=200, slice_margin=0.2)
    more = {"exam": asked, "gate": gate, "task": CLASSES.task}
    good, alike, poor = (
        contender(v, chances(skill, seed))
        for v, skill, seed in (("2", 2, 1), ("1", 2, 2), ("3", 0.1, 3))
    )
    assert judge(good, None, **more).decision is Decision.PROMOTE
    assert judge(good, alike, **more).decision is Decision.PROMOTE
    assert judge(poor, alike, **more).decision is Decision.REJECT


@pytest.mark.parametrize(("bound", "found"), [(0.05, Outcome.PASS), (0.001, Outcome.FAIL)])
def test_a_regression_is_judged_by_its_value_and_its_coverage(bound, found):
    regression = AnswerSchema(task="regression", quantiles=LEVELS)
    gate = Gate(
        metric="rmse", margin=0.1, slice_margin=0.3, guards={}, resamples=200,
        max_coverage_error=bound,
    )  # fmt: skip
    more = {"exam": exam(TARGETS, regression), "task": "regression", "quantiles": LEVELS}
    own, other = contender("2", spread(1, 1)), contender("1", spread(1, 2))
    verdict = judge(own, other, gate=gate, **more)
    assert outcome(verdict, "max_coverage_error") is found
    assert outcome(verdict, "non_inferior") is Outcome.PASS
    assert verdict.candidate_metrics["interval_coverage"] == pytest.approx(0.8, abs=0.03)
    assert verdict.candidate_metrics["pinball"] < verdict.candidate_metrics["mae"]
    unbounded = gate.model_copy(update={"max_coverage_error": None})
    shown = judge(own, other, gate=unbounded, **more)
    assert outcome(shown, "max_coverage_error") is Outcome.NOTED
    assert shown.decision is Decision.PROMOTE
    assert judge(contender("3", spread(4, 5)), other, gate=gate, **more).decision is Decision.REJECT


def test_an_alert_budget_can_be_the_primary_metric():
    gate = Gate(
        metric="precision_at_5", margin=0.1, guards={}, resamples=200, slices=(),
        floors={"precision_at_10": 0.5},
    )  # fmt: skip
    verdict = judge(contender("2", GOOD), contender("1", ALIKE), gate=gate)
    assert verdict.decision is Decision.PROMOTE
    assert {"precision_at_5", "precision_at_10"} <= set(verdict.baseline)
    assert judge(contender("2", GOOD), None, gate=gate).decision is Decision.PROMOTE
    assert judge(contender("3", POOR), contender("1", ALIKE), gate=gate).decision is Decision.REJECT
    assert EXAM.windows == verdict.exam_windows
