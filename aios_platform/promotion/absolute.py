"""The candidate by itself: floors, a linear model, and for a first champion a constant answer."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from aios_platform.contracts.decisions import Outcome, RuleResult
from aios_platform.contracts.policy import Gate, LinearBaseline, Metric, Task
from aios_platform.errors import MetricError, PromotionError
from aios_platform.metrics import is_added, less_is_better, shown
from aios_platform.metrics.quantiles import coverage_error
from aios_platform.promotion.exam import Contender, Rows
from aios_platform.promotion.quality import RESAMPLES
from aios_platform.promotion.rules import described, finite
from aios_platform.promotion.statistics import detectable, superiority
from aios_platform.resampling import Interval, gain_interval, metric_intervals, seed_of

NOTED_ROWS = 10_000
"""Rows of the exam, spread over it, on which a linear model is compared where it is only noted."""


def beats_constant(gate: Gate, task: Task, rows: Rows, candidate: Any) -> RuleResult:
    """Without a champion the candidate must beat the best constant answer, with significance.

    The best constant is the exam's own: its base rate, its class shares, or its mean.
    """
    metric = _proper(gate.metric, task)
    constant = _constant(task, metric, rows.truth, candidate)
    gain = _gain(gate, task, metric, rows, candidate, constant)
    says = {
        Outcome.PASS: "better than the best constant",
        Outcome.FAIL: "no better than the best constant",
        Outcome.UNKNOWN: "not shown to be better than the best constant",
    }
    outcome = superiority(gain)
    return _superior(
        "beats_constant",
        outcome,
        metric,
        gain,
        f"{says[outcome].capitalize()} (there is no champion yet): {described(metric, gain)}.",
    )


def beats_linear(
    gate: Gate, task: Task, rows: Rows, candidate: Any, linear: Contender | None
) -> Iterator[RuleResult]:
    """The rule `beats_linear`: is the network better than a linear model of the same rows?

    Args:
        gate: The policy; where it does not require the rule, the result is noted.
        task: Kind of answer.
        rows: The exam's rows.
        candidate: The candidate's scores.
        linear: The linear model's answers; None: it was not fitted.
    """
    required = gate.linear_baseline is LinearBaseline.REQUIRED
    if gate.linear_baseline is LinearBaseline.OFF or (linear is None and not required):
        return
    metric = _proper(gate.metric, task)
    # What is only shown need not cost as much as what decides.
    step = 1 if required else -(-rows.truth.size // NOTED_ROWS)
    try:
        if linear is None:
            raise PromotionError("It was not fitted.", remedy="Judge the candidate again.")
        gain = _gain(
            gate, task, metric, rows, candidate, rows.scores_of(linear), step=step,
            resamples=gate.resamples if required else min(gate.resamples, RESAMPLES),
        )  # fmt: skip
    except (MetricError, PromotionError) as error:
        why = linear.problem if linear is not None and linear.problem else error.what
        yield RuleResult(
            rule="beats_linear",
            outcome=Outcome.UNKNOWN if required else Outcome.NOTED,
            reason=f"There is no linear model to compare with: {why}",
        )
        return
    outcome = superiority(gain)
    says = {
        Outcome.PASS: "Better than a linear model",
        Outcome.FAIL: "No better than a linear model",
        Outcome.UNKNOWN: "Not shown to be better than a linear model",
    }
    yield _superior(
        "beats_linear",
        outcome if required else Outcome.NOTED,
        metric,
        gain,
        f"{says[outcome]} of the same training rows: {described(metric, gain)}.",
    )


def _gain(
    gate: Gate,
    task: Task,
    metric: Metric,
    rows: Rows,
    own: Any,
    other: Any,
    *,
    step: int = 1,
    resamples: int | None = None,
) -> Interval:
    """How much better the candidate is than a reference, on every `step`-th row."""
    return gain_interval(
        metric,
        rows.truth[::step],
        own[::step],
        other[::step],
        seed=seed_of(rows.digest),
        confidence=gate.confidence,
        resamples=resamples or gate.resamples,
        task=task,
    )


def _superior(
    name: str, outcome: Outcome, metric: Metric, gain: Interval, reason: str
) -> RuleResult:
    return RuleResult(
        rule=name,
        outcome=outcome,
        metric=metric,
        observed=gain.estimate,
        bound=0.0,
        low=gain.low,
        high=gain.high,
        detectable=finite(detectable(gain)),
        rows=gain.rows,
        reason=reason,
    )


def _proper(metric: Metric, task: Task) -> Metric:
    # A constant base rate is perfectly calibrated on average, and a constant has no ranking or
    # class: a proper score compares the rest as well.
    # An added metric may have no use for a constant either, and nothing here knows.
    if is_added(metric):
        return "rmse" if task == "regression" else "brier"
    return "brier" if metric in ("ece", "ece_debiased", "reliability") else metric


def _constant(task: Task, metric: str, truth: Any, candidate: Any) -> Any:
    if task == "multiclass_classification":
        shares = np.bincount(truth, minlength=candidate.shape[1]) / truth.size
        return np.tile(shares, (truth.size, 1))
    best = np.median(truth) if metric == "mae" else truth.mean()
    return np.full(truth.size, best)


def floors(
    gate: Gate,
    task: Task,
    rows: Rows,
    candidate: Any,
    metrics: dict[str, float],
    *,
    significantly: bool,
) -> Iterator[RuleResult]:
    """The rules `floor_<metric>`.

    Args:
        gate: The policy.
        task: Kind of answer.
        rows: The exam's rows.
        candidate: The candidate's scores.
        metrics: The candidate's metrics on the exam.
        significantly: For the first champion: the interval's worse end must clear the floor, too.
    """
    intervals = (
        metric_intervals(
            list(gate.floors),
            rows.truth,
            candidate,
            seed=seed_of(rows.digest),
            confidence=gate.confidence,
            resamples=gate.resamples,
            task=task,
        )
        if significantly
        else {}
    )
    for metric, floor in gate.floors.items():
        value, less = metrics[metric], less_is_better(metric)
        interval = intervals.get(metric)
        worst = value if interval is None else (interval.high if less else interval.low)
        good, sure = (value <= floor, worst <= floor) if less else (value >= floor, worst >= floor)
        outcome = Outcome.PASS if good and sure else Outcome.UNKNOWN if good else Outcome.FAIL
        ends = f" ({interval.low:.4f} to {interval.high:.4f})" if interval else ""
        doubt = ", and the first champion must clear it with significance" * (good and not sure)
        yield RuleResult(
            rule=f"floor_{metric}",
            outcome=outcome,
            metric=metric,
            observed=value,
            bound=floor,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            rows=rows.truth.size,
            reason=f"{shown(metric)} is {value:.4f}{ends}; at {'most' if less else 'least'} "
            f"{floor:g} is required{doubt}.",
        )


def covered(
    gate: Gate, metrics: dict[str, float], quantiles: Sequence[float], rows: int
) -> Iterator[RuleResult]:
    """The rule `max_coverage_error`; noted where the policy has no bound.

    Args:
        gate: The policy.
        metrics: The candidate's metrics on the exam.
        quantiles: Declared levels; empty: there is no rule.
        rows: Rows of the exam.
    """
    if not quantiles:
        return
    bound, error = gate.max_coverage_error, coverage_error(metrics, quantiles)
    if error is None:
        outcome, says = Outcome.UNKNOWN, "The coverage of the quantiles was not measured"
    else:
        outcome = Outcome.PASS if bound is not None and error <= bound else Outcome.FAIL
        says = f"The coverage of the quantiles is up to {error:.3f} off their levels"
    if bound is None:
        outcome = Outcome.NOTED
    yield RuleResult(
        rule="max_coverage_error",
        outcome=outcome,
        observed=error,
        bound=bound,
        rows=rows,
        reason=f"{says}." if bound is None else f"{says}; at most {bound:g} is allowed.",
    )
