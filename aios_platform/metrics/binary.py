"""Metrics of binary classifiers that give probabilities.

The public functions check their input; those with a leading underscore, and the row-wise ones,
take checked input and are what the registry and the bootstrap are built of.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.metrics.binning import (
    ECE_BINS,
    binned_ece,
    binned_ece_debiased,
    binned_reliability,
)
from aios_platform.metrics.checks import Labels, Scores, checked_binary

# Models answer in float32, where a probability can be exactly 0 or 1: one such row would make the
# mean logarithmic loss infinite. This is the bound scikit-learn takes for float32, too.
PROBABILITY_EPSILON = float(np.finfo(np.float32).eps)
ACCURACY_THRESHOLD = 0.5


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the Mann-Whitney statistic, ties counted half.

    Source: Hanley and McNeil (1982), Radiology 143:29-36.

    Args:
        labels: Shape (n,), bool.
        scores: Shape (n,), probabilities of the positive class.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return mann_whitney(*checked_binary(labels, scores))


def pr_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: precision at each threshold, weighted by the recall gained there.

    This is the step-wise area without interpolation, as in scikit-learn's
    `average_precision_score`; linear interpolation is too optimistic (Davis and Goadrich 2006).

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return _pr_auc(*checked_binary(labels, scores))


def log_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities kept `PROBABILITY_EPSILON` off 0 and 1.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return float(log_losses(*checked_binary(labels, scores)).mean())


def brier(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean squared error of the probability (Brier 1950).

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return float(squared_errors(*checked_binary(labels, scores)).mean())


def accuracy(
    labels: ArrayLike, scores: ArrayLike, *, threshold: float = ACCURACY_THRESHOLD
) -> float:
    """Share of rows on the right side of a threshold; a score equal to it counts as positive.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return _accuracy(*checked_binary(labels, scores), threshold=threshold)


def ece(labels: ArrayLike, scores: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error over equal-mass bins.

    The row-weighted mean over bins of |share of positives - mean score| (Naeini et al. 2015).
    Bins hold equally many rows, since equal-width bins are more biased (Roelofs et al. 2022);
    equal scores share a bin, so that the order of rows has no influence.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return binned_ece(*checked_binary(labels, scores), bins=bins)


def ece_debiased(labels: ArrayLike, scores: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error, less what the noise of the labels alone adds to it.

    See `metrics.binning.debiased`.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return binned_ece_debiased(*checked_binary(labels, scores), bins=bins)


def reliability(labels: ArrayLike, scores: ArrayLike, bins: int = ECE_BINS) -> float:
    """What miscalibration costs in Brier score, less what the noise of the labels adds.

    The mean over equal-mass bins of (mean score - share of positives)²: 0.0001 is a model that is
    off by 0.01 everywhere. Unlike `ece` it is unbiased, for few rows too, and so is its
    difference between two models. See `metrics.binning.reliability_of`.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return binned_reliability(*checked_binary(labels, scores), bins=bins)


def log_losses(truth: Labels, scores: Scores) -> Scores:
    """Negative log-likelihood of each row, shape (n,), nats. The input must be checked."""
    bounded = np.clip(scores, PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    losses: Scores = -np.log(np.where(truth, bounded, 1 - bounded))
    return losses


def squared_errors(truth: Labels, scores: Scores) -> Scores:
    """Squared error of each row, shape (n,). The input must be checked."""
    errors: Scores = (scores - truth) ** 2
    return errors


def correct(truth: Labels, scores: Scores, threshold: float = ACCURACY_THRESHOLD) -> Labels:
    """Whether each row is on the right side of the threshold, shape (n,); checked input."""
    right: Labels = (scores >= threshold) == truth
    return right


def _accuracy(truth: Labels, scores: Scores, threshold: float = ACCURACY_THRESHOLD) -> float:
    return float(correct(truth, scores, threshold).mean())


def mann_whitney(truth: Labels, scores: Scores) -> float:
    """ROC AUC of checked input."""
    positive, negative = np.sort(scores[truth]), np.sort(scores[~truth])
    wins = np.searchsorted(negative, positive, side="left").sum()
    wins_and_ties = np.searchsorted(negative, positive, side="right").sum()
    return float((wins + wins_and_ties) / 2 / positive.size / negative.size)


def _pr_auc(truth: Labels, scores: Scores) -> float:
    order = np.argsort(-scores)
    ordered = scores[order]
    ends = np.append(np.flatnonzero(np.diff(ordered)), truth.size - 1)
    hits = np.cumsum(truth[order])[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def precision_at(truth: Labels, scores: Scores, percent: int) -> float:
    """Precision among the rows of highest score: of a fixed budget of alerts, the share of hits.

    The budget is so many percent of the rows, rounded down, at least one row. Where it ends among
    equal scores, the figure is the mean over all orders of those rows (McSherry and Najork 2008,
    ECIR 2008, LNCS 4956:414-421): the order of the rows has no influence.

    Args:
        truth: Checked labels, shape (n,).
        scores: Checked scores, shape (n,).
        percent: The budget in percent of the rows.
    """
    return weighted_precision_at(truth, scores, percent)(np.ones(truth.size))


def weighted_precision_at(
    truth: Labels, scores: Scores, percent: int
) -> Callable[[NDArray[np.float64]], float]:
    """`precision_at` as a function of how often each row counts, shape (n,), summing to n."""
    levels, level_of = np.unique(-scores, return_inverse=True)
    budget = max(1, truth.size * percent // 100)
    positive = truth.astype(np.float64)

    def value(counts: NDArray[np.float64]) -> float:
        rows = np.bincount(level_of, counts, levels.size)
        hits = np.bincount(level_of, positive * counts, levels.size)
        reached = np.cumsum(rows)
        last = int(np.searchsorted(reached, budget))
        before, found = reached[last] - rows[last], hits[:last].sum()
        return float((found + hits[last] * (budget - before) / rows[last]) / budget)

    return value


ALERT_BUDGETS = {f"precision_at_{percent}": percent for percent in (1, 2, 5, 10)}
"""Metrics of a fixed alert budget, and its percent of the rows."""


def _at(percent: int) -> Callable[[Labels, Scores], float]:
    return lambda truth, scores: precision_at(truth, scores, percent)


METRICS: dict[str, Callable[[Labels, Scores], float]] = {
    "roc_auc": mann_whitney,
    "pr_auc": _pr_auc,
    "log_loss": lambda truth, scores: float(log_losses(truth, scores).mean()),
    "brier": lambda truth, scores: float(squared_errors(truth, scores).mean()),
    "ece": binned_ece,
    "ece_debiased": binned_ece_debiased,
    "reliability": binned_reliability,
    "accuracy": _accuracy,
    **{name: _at(percent) for name, percent in ALERT_BUDGETS.items()},
}
