"""Metrics of binary classifiers that give probabilities.

Training, the gate and monitoring all compute their figures here, so that a value on an exam and
a value in production mean the same thing. Every function refuses input from which no honest
figure can be had (`MetricError`): no metric is ever NaN.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.errors import MetricError

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]

ECE_BINS = 15
# Models answer in float32, where a probability can be exactly 0 or 1: one such row would make the
# mean logarithmic loss infinite. This is the bound scikit-learn takes for float32, too.
PROBABILITY_EPSILON = float(np.finfo(np.float32).eps)

_REMEDY = "Compute metrics over labelled rows with finite probabilities only."


def checked_labels(labels: ArrayLike) -> Labels:
    """Labels as booleans.

    Args:
        labels: Shape (n,), bool or numbers that are all 0 or 1.

    Raises:
        MetricError: There is no row, the shape is wrong, or a value is neither 0 nor 1.
    """
    try:
        values = np.asarray(labels)
    except ValueError as error:
        raise MetricError(f"The labels are not an array: {error}.", remedy=_REMEDY) from None
    if values.ndim != 1 or not values.size:
        raise MetricError(
            f"The labels have the shape {values.shape}; expected (n,) with n > 0.", remedy=_REMEDY
        )
    if values.dtype == np.bool_:
        return values
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        numbers = np.full(values.shape, np.nan)
    good = (numbers == 0) | (numbers == 1)
    if not good.all():
        raise MetricError(
            f"{int((~good).sum()):,} of {values.size:,} labels are neither 0 nor 1.",
            remedy=_REMEDY,
        )
    truth: Labels = numbers == 1
    return truth


def checked_scores(scores: ArrayLike, rows: int) -> Scores:
    """Scores as float64.

    Args:
        scores: Shape (rows,), probabilities in [0, 1].
        rows: The number of labels they belong to.

    Raises:
        MetricError: The shape is wrong, or a value is not a probability.
    """
    try:
        values = np.asarray(scores).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise MetricError(f"The scores are not numbers: {error}.", remedy=_REMEDY) from None
    if values.shape != (rows,):
        raise MetricError(
            f"The scores have the shape {values.shape}; the labels have ({rows},).",
            remedy=_REMEDY,
        )
    good = (values >= 0) & (values <= 1)
    if not good.all():
        bad = values[~good][0]
        raise MetricError(
            f"{int((~good).sum()):,} of {rows:,} scores are not probabilities, e.g. {bad}.",
            remedy=_REMEDY,
        )
    return values


def checked(labels: ArrayLike, scores: ArrayLike) -> tuple[Labels, Scores]:
    """Labels and scores, checked against each other; both classes must be there.

    Raises:
        MetricError: No metric can be computed from them.
    """
    truth = checked_labels(labels)
    values = checked_scores(scores, truth.size)
    positives = int(truth.sum())
    if positives in (0, truth.size):
        raise MetricError(
            f"All {truth.size:,} labels are {bool(positives)}; both classes are needed.",
            remedy="Take more rows, or windows in which both classes occur.",
        )
    return truth, values


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the Mann-Whitney statistic, ties counted half.

    Source: Hanley and McNeil (1982), Radiology 143:29-36.

    Args:
        labels: Shape (n,), bool.
        scores: Shape (n,), probabilities of the positive class.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return _roc_auc(*checked(labels, scores))


def pr_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision: precision at each threshold, weighted by the recall gained there.

    This is the step-wise area without interpolation, as in scikit-learn's
    `average_precision_score`; linear interpolation is too optimistic (Davis and Goadrich 2006).

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return _pr_auc(*checked(labels, scores))


def log_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean negative log-likelihood in nats; probabilities kept `PROBABILITY_EPSILON` off 0 and 1.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return float(log_losses(*checked(labels, scores)).mean())


def brier(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean squared error of the probability (Brier 1950).

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return float(squared_errors(*checked(labels, scores)).mean())


def ece(labels: ArrayLike, scores: ArrayLike, bins: int = ECE_BINS) -> float:
    """Expected calibration error over equal-mass bins.

    The row-weighted mean over bins of |share of positives - mean score| (Naeini et al. 2015).
    Bins hold equally many rows, since equal-width bins are more biased (Roelofs et al. 2022);
    equal scores share a bin, so that the order of rows has no influence.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    return _ece(*checked(labels, scores), bins=bins)


def log_losses(truth: Labels, scores: Scores) -> Scores:
    """Negative log-likelihood of each row, shape (n,), nats. The input must be checked."""
    bounded = np.clip(scores, PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)
    losses: Scores = -np.log(np.where(truth, bounded, 1 - bounded))
    return losses


def squared_errors(truth: Labels, scores: Scores) -> Scores:
    """Squared error of each row, shape (n,). The input must be checked."""
    errors: Scores = (scores - truth) ** 2
    return errors


def calibration_bins(scores: Scores, bins: int = ECE_BINS) -> NDArray[np.intp]:
    """The equal-mass bin of each row, shape (n,), values 0 to bins - 1; equal scores share one."""
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.quantile(scores, inner, method="inverted_cdf")
    return np.searchsorted(edges, scores, side="left")


def _roc_auc(truth: Labels, scores: Scores) -> float:
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


def _ece(truth: Labels, scores: Scores, bins: int = ECE_BINS) -> float:
    gaps = np.bincount(calibration_bins(scores, bins), weights=scores - truth, minlength=bins)
    return float(np.abs(gaps).sum() / truth.size)


METRICS: dict[str, Callable[[Labels, Scores], float]] = {
    "roc_auc": _roc_auc,
    "pr_auc": _pr_auc,
    "log_loss": lambda truth, scores: float(log_losses(truth, scores).mean()),
    "brier": lambda truth, scores: float(squared_errors(truth, scores).mean()),
    "ece": _ece,
}
LESS_IS_BETTER = frozenset({"log_loss", "brier", "ece"})


def evaluate(
    labels: ArrayLike, scores: ArrayLike, names: Iterable[str] | None = None
) -> dict[str, float]:
    """Several metrics of the same rows; all of them finite.

    Args:
        labels: Shape (n,), bool or 0 and 1.
        scores: Shape (n,), probabilities of the positive class.
        names: Metrics to compute; unset, all.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    truth, values = checked(labels, scores)
    return {name: METRICS[name](truth, values) for name in names or METRICS}


def evaluate_by(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> dict[str, dict[str, float]]:
    """All metrics of each group of rows by itself; groups that lack a class are left out.

    A metric over pooled groups is another quantity: ranking rows of a bad month above those of a
    good one raises a pooled ROC AUC, and says nothing about any month.

    Args:
        labels: Shape (n,), bool or 0 and 1.
        scores: Shape (n,), probabilities of the positive class.
        groups: Shape (n,), name of each row's group.

    Returns:
        Metrics by group, in order of the groups' names.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    truth, values = checked(labels, scores)
    names = np.asarray(groups).astype(str)
    if names.shape != truth.shape:
        raise MetricError(
            f"The groups have the shape {names.shape}; the labels have {truth.shape}.",
            remedy="Give each row one group.",
        )
    found = {}
    for name in np.unique(names):
        inside = names == name
        if 0 < truth[inside].sum() < inside.sum():
            found[str(name)] = evaluate(truth[inside], values[inside])
    return found


def gain(metric: str, value: Any, reference: Any) -> Any:
    """How much better `value` is than `reference`: positive is better, whatever the metric."""
    return reference - value if metric in LESS_IS_BETTER else value - reference
