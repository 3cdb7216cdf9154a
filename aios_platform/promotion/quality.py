"""How good a candidate is: intervals of its metrics, its calibration, its slices. For people."""

from typing import Any

from aios_platform.contracts.decisions import CalibrationBin
from aios_platform.contracts.policy import Gate, Task
from aios_platform.errors import MetricError, PromotionError
from aios_platform.metrics import BINARY, is_added, judgeable, metric_of
from aios_platform.metrics.calibration import reliability_curve
from aios_platform.promotion.exam import Exam, Rows
from aios_platform.promotion.rules import finite
from aios_platform.promotion.slices import slices_of
from aios_platform.resampling import metric_interval, seed_of

RESAMPLES = 300
"""Enough for an interval that is shown and decides nothing."""
BINS = 10


def intervals_of(gate: Gate, task: Task, rows: Rows, scores: Any) -> dict[str, tuple[float, float]]:
    """Intervals of the metrics that the policy names, at its confidence.

    Args:
        gate: The policy.
        task: Kind of answer.
        rows: The exam's rows.
        scores: The candidate's scores, in the order of the rows.

    Returns:
        Lower and upper end by metric; a metric without an interval is left out.

    Raises:
        MetricError: A metric that a package adds has none.
    """
    found: dict[str, tuple[float, float]] = {}
    for metric in gate.named:
        try:
            interval = metric_interval(
                metric,
                rows.truth,
                scores,
                seed=seed_of(rows.digest),
                confidence=gate.confidence,
                resamples=min(gate.resamples, RESAMPLES),
                task=task,
            )
        except MetricError:
            # No later candidate could be compared by an added metric that cannot be resampled.
            if is_added(metric):
                raise
            continue
        found[metric] = (interval.low, interval.high)
    return found


def calibration_of(task: Task, truth: Any, scores: Any) -> tuple[CalibrationBin, ...]:
    """The reliability curve of a binary classifier over bins of equal mass; else empty."""
    if task != BINARY:
        return ()
    curve = reliability_curve(truth, scores, bins=BINS)
    return tuple(
        CalibrationBin(score=score, share=share, low=low, high=high, rows=int(rows))
        for score, share, low, high, rows in zip(
            curve.score.tolist(),
            curve.share.tolist(),
            curve.low.tolist(),
            curve.high.tolist(),
            curve.rows.tolist(),
            strict=True,
        )
    )


def by_slice(
    gate: Gate, task: Task, exam: Exam, rows: Rows, candidate: Any, champion: Any
) -> dict[str, dict[str, float]]:
    """The primary metric of both sides on each declared slice that allows it.

    Args:
        gate: The policy.
        task: Kind of answer.
        exam: Carries the columns that slices look at.
        rows: The exam's rows.
        candidate: The candidate's scores, in the order of the rows.
        champion: The champion's; None where there are none.

    Returns:
        By slice: `rows`, `candidate` and, where there is one, `champion`.
    """
    found: dict[str, dict[str, float]] = {}
    compute = metric_of(gate.metric, task=task)
    sides = {"candidate": candidate, "champion": champion}
    for declared in gate.slices:
        try:
            groups = slices_of(declared, rows.column_of(exam, declared.column)).groups
        except PromotionError:
            continue
        for group in groups:
            truth = rows.truth[group.inside]
            if not judgeable(truth, candidate, task=task, metric=gate.metric):
                continue
            values = {
                side: finite(compute(truth, scores[group.inside]))
                for side, scores in sides.items()
                if scores is not None
            }
            found[group.name] = {
                "rows": float(group.rows),
                **{side: value for side, value in values.items() if value is not None},
            }
    return found
