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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.contracts.policy import Task
from aios_platform.metrics import BINARY, checked, checked_answers, gain, metric_of
from aios_platform.resampling.intervals import Interval
from aios_platform.resampling.weighted import Counts, Statistic, reliability_pair, statistic

BLOCK = 250
# Drawing, counting and summing many rows release the interpreter's lock.
MANY_ROWS = 5000
THREADS = 2


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
    return metric_intervals(
        [metric],
        labels,
        scores,
        seed=seed,
        confidence=confidence,
        resamples=resamples,
        task=task,
    )[metric]


def metric_intervals(
    metrics: Sequence[str],
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
    task: Task = BINARY,
) -> dict[str, Interval]:
    """`metric_interval` of several metrics: the same intervals, for less than their separate cost.

    Args:
        metrics: Names of metrics of the task.
        labels: Shape (n,), see `metrics.checked`.
        scores: Shape (n,) or (n, classes), see `metrics.checked`.
        seed: Seed of the resamples; equal seeds and input give equal intervals.
        confidence: Two-sided confidence.
        resamples: Number of resamples.
        task: Kind of answer the model gives.

    Returns:
        An interval by metric.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    computed = {metric: metric_of(metric, task=task) for metric in metrics}
    truth, values = checked(labels, scores, task=task)
    order, sizes = _classes(truth, task)
    drawn = [statistic(metric, truth[order], values[order], task=task) for metric in computed]
    stratified = [_stratified(metric, task) for metric in computed]
    draws = _resample(drawn, stratified, sizes, seed, resamples)
    return {
        metric: Interval.of(
            compute(truth, values), draws[place], confidence=confidence, rows=truth.size
        )
        for place, (metric, compute) in enumerate(computed.items())
    }


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
    The reliability of two models is taken over common bins (`weighted.reliability_pair`),
    which makes their difference far less noisy; for every other metric the estimate is the
    difference of what `evaluate` gives.

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
    order, sizes = _classes(truth, task)
    truth, values, reference = truth[order], values[order], reference[order]
    drawn: list[Statistic] = []
    estimates: dict[str, float] = {}
    for metric, compute in computed.items():
        pair: tuple[Statistic, Statistic]
        if metric == "reliability":
            pair, (own, other) = reliability_pair(truth, values, reference, task=task)
        else:
            pair = (
                statistic(metric, truth, values, task=task),
                statistic(metric, truth, reference, task=task),
            )
            own, other = compute(truth, values), compute(truth, reference)
        drawn.extend(pair)
        estimates[metric] = gain(metric, own, other)
    stratified = [_stratified(metric, task) for metric in computed for _ in range(2)]
    draws = _resample(drawn, stratified, sizes, seed, resamples)
    return {
        metric: Interval.of(
            estimate,
            gain(metric, draws[2 * place], draws[2 * place + 1]),
            confidence=confidence,
            rows=truth.size,
        )
        for place, (metric, estimate) in enumerate(estimates.items())
    }


def seed_of(digest: str) -> int:
    """A seed from a digest (hex) of the rows: the same rows, the same resamples."""
    return int(digest[:16], 16)


def _resample(
    statistics: list[Statistic],
    stratified: list[bool],
    sizes: list[int],
    seed: int,
    resamples: int,
) -> NDArray[np.float64]:
    """Values of each statistic over resamples, shape (statistics, resamples).

    Resamples come in blocks with a stream of random numbers each, so that the values do not depend
    on how many threads draw them.
    """
    values = np.empty((len(statistics), resamples))
    starts = range(0, resamples, BLOCK)
    streams = np.random.SeedSequence(seed).spawn(len(starts))
    kinds = [
        (draw, rows)
        for wanted, draw in ((True, _strata), (False, _plain))
        if (rows := [row for row, each in enumerate(stratified) if each is wanted])
    ]

    def fill(start: int, stream: np.random.SeedSequence) -> None:
        for draw, rows in kinds:
            generator = np.random.default_rng(stream)
            for column in range(start, min(start + BLOCK, resamples)):
                counts = draw(generator, sizes)
                for row in rows:
                    values[row, column] = statistics[row](counts)

    if sum(sizes) < MANY_ROWS:
        for start, stream in zip(starts, streams, strict=True):
            fill(start, stream)
    else:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, starts, streams))
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
