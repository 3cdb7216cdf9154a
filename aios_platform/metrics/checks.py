"""What labels and scores must be like before any metric is computed of them.

A metric of damaged input is worse than none: every function here refuses (`MetricError`) what no
honest figure can be had from, so that no metric is ever NaN.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.errors import MetricError

Labels: TypeAlias = NDArray[np.bool_]
Scores: TypeAlias = NDArray[np.float64]
Codes: TypeAlias = NDArray[np.intp]

# Rows of a float32 softmax miss a sum of 1 by about the machine epsilon times the classes.
ROW_SUM_TOLERANCE = 1e-3
# Beyond this the square of an error overflows.
LARGEST_NUMBER = 1e150

_REMEDY = "Compute metrics over labelled rows with finite probabilities only."
_REMEDY_NUMBERS = "Compute metrics over labelled rows with finite predictions only."


def checked_labels(labels: ArrayLike) -> Labels:
    """Labels of a binary task as booleans.

    Args:
        labels: Shape (n,), bool or numbers that are all 0 or 1.

    Raises:
        MetricError: There is no row, the shape is wrong, or a value is neither 0 nor 1.
    """
    values = _flat("labels", labels, _REMEDY)
    if values.dtype == np.bool_:
        return values.astype(np.bool_, copy=False)
    numbers = _numbers(values)
    good = (numbers == 0) | (numbers == 1)
    if not good.all():
        raise MetricError(
            f"{int((~good).sum()):,} of {values.size:,} labels are neither 0 nor 1.",
            remedy=_REMEDY,
        )
    truth: Labels = numbers == 1
    return truth


def checked_scores(scores: ArrayLike, rows: int) -> Scores:
    """Scores of a binary task as float64.

    Args:
        scores: Shape (rows,), probabilities in [0, 1].
        rows: The number of labels they belong to.

    Raises:
        MetricError: The shape is wrong, or a value is not a probability.
    """
    values = _floats("scores", scores, _REMEDY)
    if values.shape != (rows,):
        raise MetricError(
            f"The scores have the shape {values.shape}; the labels have ({rows},).",
            remedy=_REMEDY,
        )
    _all_probabilities(values)
    return values


def checked_binary(labels: ArrayLike, scores: ArrayLike) -> tuple[Labels, Scores]:
    """Labels and scores of a binary task, checked against each other.

    Args:
        labels: Shape (n,), bool or 0 and 1; both must be there.
        scores: Shape (n,), probabilities of the positive class.

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


def checked_codes(labels: ArrayLike) -> Codes:
    """Labels of a multiclass task: the place of each row's class among the columns of scores.

    Args:
        labels: Shape (n,), whole numbers from 0.

    Raises:
        MetricError: There is no row, the shape is wrong, a value is no class, or all are equal.
    """
    values = _flat("labels", labels, _REMEDY)
    numbers = _numbers(values)
    good = (numbers >= 0) & (numbers == np.floor(numbers)) & (numbers < 2**31)
    if not good.all():
        raise MetricError(
            f"{int((~good).sum()):,} of {values.size:,} labels are not class codes (0, 1, 2 ...).",
            remedy="Encode each class as its place among the columns of the scores.",
        )
    codes: Codes = numbers.astype(np.intp)
    if (codes == codes[0]).all():
        raise MetricError(
            f"All {codes.size:,} labels are of class {codes[0]}; at least two classes are needed.",
            remedy="Take more rows, or windows in which several classes occur.",
        )
    return codes


def checked_distributions(scores: ArrayLike, codes: Codes) -> Scores:
    """Scores of a multiclass task as float64.

    Args:
        scores: Shape (n, classes): a probability of each class, each row summing to 1.
        codes: Shape (n,), checked labels.

    Raises:
        MetricError: The shape is wrong, a value is not a probability, a row does not sum to 1
            (within `ROW_SUM_TOLERANCE`), or a label names no column.
    """
    values = _floats("scores", scores, _REMEDY)
    if values.ndim != 2 or values.shape[0] != codes.size or values.shape[1] < 2:
        raise MetricError(
            f"The scores have the shape {values.shape}; expected ({codes.size}, classes) with two "
            "classes or more.",
            remedy="Give a probability of each class for each row.",
        )
    _all_probabilities(values)
    sums = values.sum(axis=1)
    good = np.abs(sums - 1) <= ROW_SUM_TOLERANCE
    if not good.all():
        raise MetricError(
            f"{int((~good).sum()):,} of {codes.size:,} rows of scores do not sum to 1, e.g. to "
            f"{sums[~good][0]:.6g}.",
            remedy="Give probabilities (after the softmax), one column for each class.",
        )
    if codes.max() >= values.shape[1]:
        raise MetricError(
            f"A label is of class {codes.max()}; the scores have {values.shape[1]} columns.",
            remedy="Give a column for each class, in the order of their codes.",
        )
    return values


def checked_multiclass(labels: ArrayLike, scores: ArrayLike) -> tuple[Codes, Scores]:
    """Labels and scores of a multiclass task, checked against each other.

    Args:
        labels: Shape (n,), class codes from 0; at least two classes.
        scores: Shape (n, classes), rows of probabilities.

    Raises:
        MetricError: No metric can be computed from them.
    """
    codes = checked_codes(labels)
    return codes, checked_distributions(scores, codes)


def checked_targets(labels: ArrayLike) -> Scores:
    """Labels of a regression as float64.

    Args:
        labels: Shape (n,), finite numbers.

    Raises:
        MetricError: There is no row, the shape is wrong, or a value is not finite.
    """
    values = _flat("labels", labels, _REMEDY_NUMBERS)
    return _all_finite("labels", _numbers(values))


def checked_predictions(scores: ArrayLike, rows: int) -> Scores:
    """Predictions of a regression as float64.

    Args:
        scores: Shape (rows,), finite numbers in the unit of the labels.
        rows: The number of labels they belong to.

    Raises:
        MetricError: The shape is wrong, or a value is not finite.
    """
    values = _floats("predictions", scores, _REMEDY_NUMBERS)
    if values.shape != (rows,):
        raise MetricError(
            f"The predictions have the shape {values.shape}; the labels have ({rows},).",
            remedy=_REMEDY_NUMBERS,
        )
    return _all_finite("predictions", values)


def checked_regression(labels: ArrayLike, scores: ArrayLike) -> tuple[Scores, Scores]:
    """Labels and predictions of a regression, checked against each other.

    Raises:
        MetricError: No metric can be computed from them.
    """
    targets = checked_targets(labels)
    return targets, checked_predictions(scores, targets.size)


def _flat(what: str, values: ArrayLike, remedy: str) -> NDArray[np.generic]:
    try:
        found = np.asarray(values)
    except ValueError as error:
        raise MetricError(f"The {what} are not an array: {error}.", remedy=remedy) from None
    if found.ndim != 1 or not found.size:
        raise MetricError(
            f"The {what} have the shape {found.shape}; expected (n,) with n > 0.", remedy=remedy
        )
    return found


def _floats(what: str, values: ArrayLike, remedy: str) -> Scores:
    try:
        return np.asarray(values).astype(np.float64)
    except (TypeError, ValueError) as error:
        raise MetricError(f"The {what} are not numbers: {error}.", remedy=remedy) from None


def _numbers(values: NDArray[np.generic]) -> Scores:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        return np.full(values.shape, np.nan)


def _all_probabilities(values: Scores) -> None:
    good = (values >= 0) & (values <= 1)
    if not good.all():
        bad = values[~good][0]
        raise MetricError(
            f"{int((~good).sum()):,} of {values.size:,} scores are not probabilities, e.g. {bad}.",
            remedy=_REMEDY,
        )


def _all_finite(what: str, values: Scores) -> Scores:
    good = np.abs(values) <= LARGEST_NUMBER
    if not good.all():
        raise MetricError(
            f"{int((~good).sum()):,} of {values.size:,} {what} are not finite numbers (or beyond "
            f"{LARGEST_NUMBER:g}).",
            remedy=_REMEDY_NUMBERS,
        )
    return values
