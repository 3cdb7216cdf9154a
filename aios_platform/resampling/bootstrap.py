"""Bootstrap intervals of metrics, and of the paired difference between two models.

Rows are drawn with replacement, as many as there are; a resample that lacks a class is drawn
again. For the ROC AUC of a binary task resampling is stratified: each resample has as many
positives and as many negatives as the rows have (as in pROC, Robin et al. 2011), which is DeLong's
view of it. Only there: an AUC does not depend on the share of positives, while a loss, a precision
or a calibration error does, and with that share held fixed their intervals would leave out what is
often most of their variance.

Both models see the same resamples, which is what makes the difference paired.

Memory stays proportional to the rows, whatever the number of resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.contracts.policy import Task
from aios_platform.metrics import BINARY, Scores, checked, checked_answers, gain, metric_of
from aios_platform.resampling.intervals import Interval
from aios_platform.resampling.weighted import Counts, statistic


def metric_interval(
    metric: str,
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
    task: Task = BINARY,
) -> Interval:
    """A metric with its bootstrap interval.

    Args:
        metric: Name of a metric of the task.
        labels: Shape (n,), see `metrics.checked`.
        scores: Shape (n,) or (n, classes), see `metrics.checked`.
        seed: Seed of the resamples; equal seeds and input give an equal interval.
        confidence: Two-sided confidence.
        resamples: Number of resamples.
        task: Kind of answer the model gives.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    compute = metric_of(metric, task=task)
    truth, values = checked(labels, scores, task=task)
    draws = _resample([(metric, values)], truth, task=task, seed=seed, resamples=resamples)
    return Interval.of(compute(truth, values), draws[0], confidence=confidence, rows=truth.size)


def gain_interval(
    metric: str,
    labels: ArrayLike,
    scores: ArrayLike,
    reference_scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
    task: Task = BINARY,
) -> Interval:
    """How much better `scores` are than `reference_scores` on the same rows, with its interval.

    Positive is better whatever the metric: for metrics where less is better the sign is turned.

    Args:
        metric: Name of a metric of the task.
        labels: Shape (n,), see `metrics.checked`.
        scores: Shape (n,) or (n, classes), of the one model.
        reference_scores: Of the other model, row by row; same shape.
        seed: Seed of the resamples; equal seeds and input give an equal interval.
        confidence: Two-sided confidence.
        resamples: Number of resamples.
        task: Kind of answer the models give.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return gain_intervals(
        [metric],
        labels,
        scores,
        reference_scores,
        seed=seed,
        confidence=confidence,
        resamples=resamples,
        task=task,
    )[metric]


def gain_intervals(
    metrics: Sequence[str],
    labels: ArrayLike,
    scores: ArrayLike,
    reference_scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
    task: Task = BINARY,
) -> dict[str, Interval]:
    """`gain_interval` of several metrics: the same intervals, for less than their separate cost.

    Args:
        metrics: Names of metrics of the task.
        labels: Shape (n,), see `metrics.checked`.
        scores: Shape (n,) or (n, classes), of the one model.
        reference_scores: Of the other model, row by row; same shape.
        seed: Seed of the resamples; equal seeds and input give equal intervals.
        confidence: Two-sided confidence.
        resamples: Number of resamples.
        task: Kind of answer the models give.

    Returns:
        An interval by metric.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    computed = {metric: metric_of(metric, task=task) for metric in metrics}
    truth, values = checked(labels, scores, task=task)
    reference = checked_answers(reference_scores, truth, task=task)
    contests = [(metric, each) for metric in computed for each in (values, reference)]
    draws = _resample(contests, truth, task=task, seed=seed, resamples=resamples)
    return {
        metric: Interval.of(
            gain(metric, compute(truth, values), compute(truth, reference)),
            gain(metric, draws[2 * place], draws[2 * place + 1]),
            confidence=confidence,
            rows=truth.size,
        )
        for place, (metric, compute) in enumerate(computed.items())
    }


def seed_of(digest: str) -> int:
    """A seed from a digest (hex) of the rows: the same rows, the same resamples."""
    return int(digest[:16], 16)


def _resample(
    contests: list[tuple[str, Scores]], truth: Any, *, task: Task, seed: int, resamples: int
) -> NDArray[np.float64]:
    """Values of each metric and its scores over resamples, shape (contests, resamples)."""
    values = np.empty((len(contests), resamples))
    order, sizes = _classes(truth, task)
    for stratified, draw in ((True, _strata), (False, _plain)):
        rows = [i for i, (name, _) in enumerate(contests) if _stratified(name, task) is stratified]
        if not rows:
            continue
        drawn = [
            statistic(contests[row][0], truth[order], contests[row][1][order], task=task)
            for row in rows
        ]
        generator = np.random.default_rng(seed)
        for column in range(resamples):
            counts = draw(generator, sizes)
            for row, value in zip(rows, drawn, strict=True):
                values[row, column] = value(counts)
    return values


def _stratified(metric: str, task: Task) -> bool:
    return task == BINARY and metric == "roc_auc"


def _classes(truth: Any, task: Task) -> tuple[NDArray[np.intp], list[int]]:
    """The order that brings the rows of a class together, and the size of each class."""
    if task == "regression":
        return np.arange(truth.size), [truth.size]
    keys = ~truth if task == BINARY else truth
    return np.argsort(keys, kind="stable"), [int(size) for size in np.bincount(keys) if size]


def _strata(generator: np.random.Generator, sizes: list[int]) -> Counts:
    return np.concatenate([_draw(generator, size) for size in sizes])


def _plain(generator: np.random.Generator, sizes: list[int]) -> Counts:
    starts = np.cumsum([0, *sizes[:-1]])
    while True:
        counts = _draw(generator, sum(sizes))
        if np.add.reduceat(counts, starts).all():
            return counts


def _draw(generator: np.random.Generator, rows: int) -> Counts:
    return np.bincount(generator.integers(0, rows, rows), minlength=rows).astype(np.float64)
