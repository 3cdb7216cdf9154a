"""Metrics as functions of how often each row was drawn.

A resample is a vector of counts, not a copy of the rows: rows are sorted once, and a resample
costs a few passes over them. Every statistic takes the counts of all rows, shape (n,), float64, in
the order of the labels it was made of; they sum to n, and every class was drawn.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.policy import Task
from aios_platform.errors import MetricError
from aios_platform.metrics import (
    ECE_BINS,
    METRICS_OF,
    Codes,
    Labels,
    Scores,
    added_statistic,
    binary,
    calibration_bins,
    is_added,
    multiclass,
)
from aios_platform.metrics.binning import debiased, reliability_of, sums

Counts = NDArray[np.float64]
Statistic = Callable[[Counts], float]
BinSums = Callable[[Counts], tuple[Scores, Scores, Scores]]


def statistic(metric: str, truth: Any, scores: Scores, *, task: Task) -> Statistic:
    """A metric as a function of counts.

    Args:
        metric: Name of a metric of the task.
        truth: Checked labels, shape (n,), sorted by stratum (binary: positives first).
        scores: Checked scores, in the same order.
        task: Kind of answer the model gives.

    Raises:
        MetricError: The task has no such metric, or an added one does not heed weights.
    """
    if is_added(metric):
        return added_statistic(metric, truth, scores, task)
    families: dict[Task, Callable[[str, Any, Scores], Statistic | None]] = {
        "binary_classification": _binary,
        "multiclass_classification": _multiclass,
        "regression": _regression,
    }
    made = families[task](metric, truth, scores)
    if made is None:
        raise MetricError(
            f"There is no bootstrap of the metric '{metric}' for the task {task}.",
            remedy=f"Take one of {', '.join(METRICS_OF[task])}.",
        )
    return made


def reliability_pair(
    truth: Any, scores: Scores, reference: Scores, *, task: Task
) -> tuple[tuple[Statistic, Statistic], tuple[float, float]]:
    """Reliability of two classifiers over common bins: their statistics, and their values.

    The bins are those of the mean of both scores. With bins of its own each model would have a
    noise of its own; in common bins the noise of the labels is the same for both, and the
    difference loses it: it depends on the labels only by as much as the mean scores differ.
    Between similar models the standard error is a seventh.

    Args:
        truth: Checked labels, shape (n,).
        scores: Checked scores of the one model, shape (n,) or (n, classes).
        reference: Checked scores of the other, same shape.
        task: Binary, or multiclass: then of the top label.
    """
    models = [(truth, scores), (truth, reference)]
    if task == "multiclass_classification":
        models = [(multiclass.correct(truth, each), each.max(axis=1)) for _, each in models]
    places = calibration_bins((models[0][1] + models[1][1]) / 2)
    summed = [_bin_sums(right, each, places) for right, each in models]
    first, second = (_reliability(each) for each in summed)
    once = np.ones(truth.size)
    return (first, second), (reliability_of(*summed[0](once)), reliability_of(*summed[1](once)))


def _binary(metric: str, truth: Labels, scores: Scores) -> Statistic | None:
    if metric in binary.ALERT_BUDGETS:
        return binary.weighted_precision_at(truth, scores, binary.ALERT_BUDGETS[metric])
    match metric:
        case "roc_auc":
            return _roc_auc(truth, scores)
        case "pr_auc":
            return _pr_auc(truth, scores)
        case "log_loss":
            return _mean(binary.log_losses(truth, scores))
        case "brier":
            return _mean(binary.squared_errors(truth, scores))
        case "accuracy":
            return _mean(binary.correct(truth, scores).astype(np.float64))
        case "ece":
            return _ece(truth, scores)
        case "ece_debiased":
            return _ece_debiased(truth, scores)
        case "reliability":
            return _reliability(_bin_sums(truth, scores))
    return None


def _multiclass(metric: str, codes: Codes, scores: Scores) -> Statistic | None:
    match metric:
        case "roc_auc":
            multiclass.require_every_class(codes, scores)
            each = [_roc_auc(codes == k, scores[:, k]) for k in range(scores.shape[1])]
            return lambda counts: float(np.mean([one(counts) for one in each]))
        case "macro_f1":
            multiclass.require_every_class(codes, scores)
            return _macro_f1(codes, scores)
        case "log_loss":
            return _mean(multiclass.log_losses(codes, scores))
        case "brier":
            return _mean(multiclass.squared_errors(codes, scores))
        case "accuracy":
            return _mean(multiclass.correct(codes, scores).astype(np.float64))
        case "ece":
            return _ece(multiclass.correct(codes, scores), scores.max(axis=1))
        case "ece_debiased":
            return _ece_debiased(multiclass.correct(codes, scores), scores.max(axis=1))
        case "reliability":
            return _reliability(_bin_sums(multiclass.correct(codes, scores), scores.max(axis=1)))
    return None


def _regression(metric: str, targets: Scores, predictions: Scores) -> Statistic | None:
    match metric:
        case "mae":
            return _mean(np.abs(predictions - targets))
        case "rmse":
            mean = _mean((predictions - targets) ** 2)
            return lambda counts: float(np.sqrt(mean(counts)))
        case "r2":
            return _r2(targets, predictions)
    return None


def _mean(values: Scores) -> Statistic:
    return lambda counts: _dot(values, counts) / values.size


def _roc_auc(truth: Labels, scores: Scores) -> Statistic:
    of_positives, of_negatives = _part(truth), _part(~truth)
    positives, negatives = scores[of_positives], scores[of_negatives]
    order = np.argsort(negatives)
    ordered = negatives[order]
    below = np.searchsorted(ordered, positives, side="left")
    below_or_tied = np.searchsorted(ordered, positives, side="right")
    tied = bool((below != below_or_tied).any())

    def value(counts: Counts) -> float:
        # How many drawn negatives lie below each place of the order.
        reached = np.zeros(negatives.size + 1)
        np.cumsum(counts[of_negatives][order], out=reached[1:])
        wins = reached[below]
        if tied:
            wins = (wins + reached[below_or_tied]) / 2
        chosen = counts[of_positives]
        return _dot(wins, chosen) / float(chosen.sum() * reached[-1])

    return value


def _pr_auc(truth: Labels, scores: Scores) -> Statistic:
    of_positives, of_negatives = _part(truth), _part(~truth)
    # Only thresholds at which a positive is found add to the sum.
    levels, level_of_positive = np.unique(-scores[of_positives], return_inverse=True)
    level_of_negative = np.searchsorted(levels, -scores[of_negatives], side="left")
    places = levels.size

    def value(counts: Counts) -> float:
        found = np.bincount(level_of_positive, counts[of_positives], places)
        false = np.bincount(level_of_negative, counts[of_negatives], places + 1)[:places]
        hits = np.cumsum(found)
        flagged = hits + np.cumsum(false)
        flagged[hits == 0] = 1
        return float((found * hits / flagged).sum() / hits[-1])

    return value


def _ece(truth: Labels, scores: Scores) -> Statistic:
    # The bins are those of the rows as they are: moving them with each resample would mix the
    # noise of the edges into the figure.
    places, excess, rows = calibration_bins(scores), scores - truth, truth.size

    def value(counts: Counts) -> float:
        return float(np.abs(np.bincount(places, excess * counts, ECE_BINS)).sum() / rows)

    return value


def _ece_debiased(truth: Labels, scores: Scores) -> Statistic:
    summed = _bin_sums(truth, scores)
    return lambda counts: debiased(*summed(counts))


def _reliability(summed: BinSums) -> Statistic:
    # Resampling adds the noise of the labels a second time to that which the rows hold already:
    # taken off twice, the resamples lie around the estimate.
    return lambda counts: reliability_of(*summed(counts), noise=2)


def _bin_sums(truth: Labels, scores: Scores, places: NDArray[np.intp] | None = None) -> BinSums:
    places = calibration_bins(scores) if places is None else places
    excess, positive = scores - truth, truth.astype(np.float64)
    return lambda counts: (
        sums(places, excess * counts, ECE_BINS),
        sums(places, positive * counts, ECE_BINS),
        sums(places, counts, ECE_BINS),
    )


def _macro_f1(codes: Codes, scores: Scores) -> Statistic:
    classes, answered = scores.shape[1], scores.argmax(axis=1)
    right = (answered == codes).astype(np.float64)

    def value(counts: Counts) -> float:
        return multiclass.f1_of_counts(
            np.bincount(codes, right * counts, classes),
            np.bincount(codes, counts, classes),
            np.bincount(answered, counts, classes),
        )

    return value


def _r2(targets: Scores, predictions: Scores) -> Statistic:
    residuals, centred = (predictions - targets) ** 2, targets - targets.mean()
    squares, rows = centred**2, targets.size

    def value(counts: Counts) -> float:
        # A resample in which all labels are equal has no r2: NaN, which the interval refuses.
        spread = _dot(squares, counts) - _dot(centred, counts) ** 2 / rows
        return 1 - _dot(residuals, counts) / spread if spread > 0 else float("nan")

    return value


def _part(chosen: Labels) -> slice | NDArray[np.intp]:
    """Places of chosen rows; a slice, which copies nothing, where they are neighbours."""
    places = np.flatnonzero(chosen)
    if places.size and places[-1] - places[0] + 1 == places.size:
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def _dot(left: Scores, right: Counts) -> float:
    # Not `@`: BLAS splits long vectors over threads, which makes the last bits depend on their
    # number and costs more than it gains.
    return float((left * right).sum())
