"""Bootstrap intervals of metrics, and of the paired difference between two models.

Resampling is stratified for classification: each resample draws as many rows of each class as
there are, with replacement within the class, so that no resample lacks one (as in pROC, Robin et
al. 2011). For regression rows are drawn from all rows. Both models see the same resamples, which
is what makes the difference paired; so do all metrics of one call.

Memory stays proportional to the rows, whatever the number of resamples.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.contracts.policy import Task
from aios_platform.metrics import BINARY, checked, checked_answers, gain, metric_of
from aios_platform.resampling.intervals import Interval
from aios_platform.resampling.weighted import Counts, Statistic, statistic


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
    order, strata = _strata(truth, task)
    draws = _resample(
        [statistic(metric, truth[order], values[order], task=task)], strata, seed, resamples
    )
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
    """`gain_interval` of several metrics over common resamples: the same values, drawn once.

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
    order, strata = _strata(truth, task)
    pairs = [
        statistic(metric, truth[order], each[order], task=task)
        for metric in computed
        for each in (values, reference)
    ]
    draws = _resample(pairs, strata, seed, resamples)
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


def _strata(truth: Any, task: Task) -> tuple[NDArray[np.intp], list[int]]:
    """The order that brings the rows of a stratum together, and the size of each stratum."""
    if task == "regression":
        return np.arange(truth.size), [truth.size]
    keys = ~truth if task == BINARY else truth
    return np.argsort(keys, kind="stable"), [int(n) for n in np.bincount(keys) if n]


def _resample(
    statistics: list[Statistic], strata: list[int], seed: int, resamples: int
) -> NDArray[np.float64]:
    """Values of each statistic over common resamples, shape (statistics, resamples)."""
    generator = np.random.default_rng(seed)
    values = np.empty((len(statistics), resamples))
    for column in range(resamples):
        counts = np.concatenate([_draw(generator, rows) for rows in strata])
        for row, value in enumerate(statistics):
            values[row, column] = value(counts)
    return values


def _draw(generator: np.random.Generator, rows: int) -> Counts:
    return np.bincount(generator.integers(0, rows, rows), minlength=rows).astype(np.float64)
