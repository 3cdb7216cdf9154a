"""Bootstrap intervals of metrics, and of the paired difference between two models.

Resampling is stratified: each resample draws as many positives and as many negatives as there
are, with replacement within each class, so that no resample lacks a class (as in pROC, Robin et
al. 2011). Both models see the same resamples, which is what makes the difference paired.

Resamples are weights, not copies: rows are sorted once, and a resample costs a few passes over
the rows. Memory stays proportional to the rows, whatever the number of resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.metrics import (
    ECE_BINS,
    METRICS,
    Labels,
    Scores,
    calibration_bins,
    checked,
    checked_scores,
    gain,
    log_losses,
    squared_errors,
)

Counts = NDArray[np.float64]
"""How often each row of one class was drawn, shape (rows of the class,)."""
Statistic = Callable[[Counts, Counts], float]
"""A metric as a function of how often each positive and each negative was drawn."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval (Efron and Tibshirani 1993, section 13.3).

    Attributes:
        estimate: The value on the rows as they are.
        low: Lower end.
        high: Upper end.
        confidence: Two-sided confidence; each end is passed with half the rest.
        resamples: Number of resamples.
        rows: Number of rows.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    resamples: int
    rows: int


def metric_interval(
    metric: str,
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """A metric with its bootstrap interval.

    Args:
        metric: A name of `metrics.METRICS`.
        labels: Shape (n,), bool or 0 and 1.
        scores: Shape (n,), probabilities of the positive class.
        seed: Seed of the resamples; equal seeds and input give an equal interval.
        confidence: Two-sided confidence.
        resamples: Number of resamples.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    truth, values = checked(labels, scores)
    draws = _resample([_statistic(metric, truth, values)], truth, seed, resamples)[0]
    estimate = METRICS[metric](truth, values)
    return _percentile(estimate, draws, confidence, truth.size)


def gain_interval(
    metric: str,
    labels: ArrayLike,
    scores: ArrayLike,
    reference_scores: ArrayLike,
    *,
    seed: int,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """How much better `scores` are than `reference_scores` on the same rows, with its interval.

    Positive is better whatever the metric: for metrics where less is better the sign is turned.

    Args:
        metric: A name of `metrics.METRICS`.
        labels: Shape (n,), bool or 0 and 1.
        scores: Shape (n,), probabilities of the one model.
        reference_scores: Shape (n,), probabilities of the other, row by row.
        seed: Seed of the resamples; equal seeds and input give an equal interval.
        confidence: Two-sided confidence.
        resamples: Number of resamples.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    truth, values = checked(labels, scores)
    reference = checked_scores(reference_scores, truth.size)
    pair = [_statistic(metric, truth, each) for each in (values, reference)]
    draws = _resample(pair, truth, seed, resamples)
    estimate = gain(metric, METRICS[metric](truth, values), METRICS[metric](truth, reference))
    return _percentile(estimate, gain(metric, draws[0], draws[1]), confidence, truth.size)


def seed_of(digest: str) -> int:
    """A seed from a digest (hex) of the rows: the same rows, the same resamples."""
    return int(digest[:16], 16)


def _percentile(
    estimate: float, draws: NDArray[np.float64], confidence: float, rows: int
) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high), confidence, draws.size, rows)


def _resample(
    statistics: list[Statistic], truth: Labels, seed: int, resamples: int
) -> NDArray[np.float64]:
    """Values of each statistic over common resamples, shape (statistics, resamples)."""
    generator = np.random.default_rng(seed)
    positives = int(truth.sum())
    negatives = truth.size - positives
    values = np.empty((len(statistics), resamples))
    for column in range(resamples):
        positive, negative = _draw(generator, positives), _draw(generator, negatives)
        for row, statistic in enumerate(statistics):
            values[row, column] = statistic(positive, negative)
    return values


def _draw(generator: np.random.Generator, rows: int) -> Counts:
    return np.bincount(generator.integers(0, rows, rows), minlength=rows).astype(np.float64)


def _statistic(metric: str, truth: Labels, scores: Scores) -> Statistic:
    match metric:
        case "roc_auc":
            return _weighted_roc_auc(truth, scores)
        case "pr_auc":
            return _weighted_pr_auc(truth, scores)
        case "log_loss":
            return _weighted_mean(truth, log_losses(truth, scores))
        case "brier":
            return _weighted_mean(truth, squared_errors(truth, scores))
        case "ece":
            return _weighted_ece(truth, scores)
    raise ValueError(f"unknown metric '{metric}'; valid: {', '.join(METRICS)}")


def _weighted_mean(truth: Labels, losses: Scores) -> Statistic:
    of_positives, of_negatives, rows = losses[truth], losses[~truth], truth.size
    return lambda positive, negative: float(
        (_dot(of_positives, positive) + _dot(of_negatives, negative)) / rows
    )


def _weighted_roc_auc(truth: Labels, scores: Scores) -> Statistic:
    positives, negatives = scores[truth], scores[~truth]
    order = np.argsort(negatives)
    ordered = negatives[order]
    below = np.searchsorted(ordered, positives, side="left")
    below_or_tied = np.searchsorted(ordered, positives, side="right")
    pairs = 2.0 * positives.size * negatives.size
    # How many drawn negatives lie below each place of the order.
    reached = np.zeros(negatives.size + 1)

    def statistic(positive: Counts, negative: Counts) -> float:
        np.cumsum(negative[order], out=reached[1:])
        return float(_dot(reached[below] + reached[below_or_tied], positive) / pairs)

    return statistic


def _weighted_pr_auc(truth: Labels, scores: Scores) -> Statistic:
    # Only thresholds at which a positive is found add to the sum.
    levels, level_of_positive = np.unique(-scores[truth], return_inverse=True)
    level_of_negative = np.searchsorted(levels, -scores[~truth], side="left")
    positives, places = int(truth.sum()), levels.size

    def statistic(positive: Counts, negative: Counts) -> float:
        found = np.bincount(level_of_positive, weights=positive, minlength=places)
        false = np.bincount(level_of_negative, weights=negative, minlength=places + 1)[:places]
        hits = np.cumsum(found)
        flagged = hits + np.cumsum(false)
        flagged[hits == 0] = 1
        return float((found * hits / flagged).sum() / positives)

    return statistic


def _weighted_ece(truth: Labels, scores: Scores) -> Statistic:
    # The bins are those of the rows as they are: moving them with each resample would mix the
    # noise of the edges into the figure.
    bins = calibration_bins(scores)
    bins_of_positives, bins_of_negatives = bins[truth], bins[~truth]
    excess, score_of_negatives, rows = scores[truth] - 1, scores[~truth], truth.size

    def statistic(positive: Counts, negative: Counts) -> float:
        gaps = np.bincount(bins_of_positives, excess * positive, ECE_BINS)
        gaps += np.bincount(bins_of_negatives, score_of_negatives * negative, ECE_BINS)
        return float(np.abs(gaps).sum() / rows)

    return statistic


def _dot(left: Scores, right: Counts) -> float:
    # Not `@`: BLAS splits long vectors over threads, which makes the last bits depend on their
    # number and costs more than it gains.
    return float((left * right).sum())
