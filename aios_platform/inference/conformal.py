"""Prediction sets with a promised coverage, from held-out rows alone.

Split conformal prediction, class by class ("Mondrian"): Vovk, Gammerman, Shafer, Algorithmic
Learning in a Random World (2005), section 4.5. The nonconformity of label y is 1 - probability(y).
If a row and the n calibration rows of its class are exchangeable, its own label is in its set with
a probability of at least the coverage, whatever the model. Rows of later months are not quite
exchangeable with earlier ones, so the coverage is also measured, on windows after them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.packages import Conformal
from aios_platform.errors import MetricError

NEGATIVE, POSITIVE = np.uint8(1), np.uint8(2)
BOTH = NEGATIVE | POSITIVE


@dataclass(frozen=True)
class Answered:
    """Labelled rows and the model's answers to them.

    Attributes:
        labels: Shape (n,), bool.
        probabilities: Shape (n,), float32, of the positive class.
        windows: Keys of the windows that they are from, oldest first.
    """

    labels: NDArray[np.bool_]
    probabilities: NDArray[np.float32]
    windows: Sequence[str]


def prediction_sets(probabilities: NDArray[np.float32], conformal: Conformal) -> NDArray[np.uint8]:
    """The labels that cannot be ruled out, row by row.

    Args:
        probabilities: Shape (n,), float32, of the positive class.
        conformal: The quantiles.

    Returns:
        Shape (n,): bit 0 is set where the negative label is in the set, bit 1 for the positive.
    """
    return _sets(probabilities, conformal.negative, conformal.positive)


def conformal_sets(coverage: float, calibration: Answered, held_out: Answered) -> Conformal:
    """Quantiles from calibration rows, and the coverage that they have on held-out rows.

    Args:
        coverage: Share of rows whose label is to be in the set, within (0, 1).
        calibration: Rows that nothing was learnt from.
        held_out: Rows of other windows.

    Raises:
        MetricError: Either lacks a class, or an answer is not a probability.
    """
    for what, rows in (("calibration", calibration), ("held-out", held_out)):
        _check(what, rows)
    nonconformity = _nonconformity(calibration.probabilities)
    negative = _quantile(nonconformity[0][~calibration.labels], coverage)
    positive = _quantile(nonconformity[1][calibration.labels], coverage)
    sets = _sets(held_out.probabilities, negative, positive)
    covered = covered_by(sets, held_out.labels)
    return Conformal(
        coverage=coverage,
        negative=negative,
        positive=positive,
        calibrated_on=tuple(calibration.windows),
        measured_on=tuple(held_out.windows),
        measured=float(covered.mean()),
        by_class=(
            float(covered[~held_out.labels].mean()),
            float(covered[held_out.labels].mean()),
        ),
        rows=len(sets),
        ambiguous=float((sets == BOTH).mean()),
        empty=float((sets == 0).mean()),
    )


def covered_by(sets: NDArray[np.uint8], labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each row's label is in its set; shapes (n,)."""
    found: NDArray[np.bool_] = (sets & np.where(labels, POSITIVE, NEGATIVE)) > 0
    return found


def _quantile(nonconformity: NDArray[np.float64], coverage: float) -> float:
    """The ⌈(n + 1) · coverage⌉-th smallest of n; 1, which holds every label, beyond the last.

    The `+ 1` counts the new row itself: without it few rows would promise too much (Angelopoulos,
    Bates: A Gentle Introduction to Conformal Prediction, 2021, section 1).
    """
    count = len(nonconformity)
    rank = math.ceil((count + 1) * coverage)
    return 1.0 if rank > count else float(np.partition(nonconformity, rank - 1)[rank - 1])


def _sets(
    probabilities: NDArray[np.float32], negative: float, positive: float
) -> NDArray[np.uint8]:
    first, second = _nonconformity(probabilities)
    return (first <= negative) * NEGATIVE | (second <= positive) * POSITIVE


def _nonconformity(
    probabilities: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the negative label and of the positive one; float64, as the quantiles are compared."""
    exact = probabilities.astype(np.float64)
    return exact, 1 - exact


def _check(what: str, rows: Answered) -> None:
    positives = int(rows.labels.sum())
    if not 0 < positives < len(rows.labels):
        raise MetricError(
            f"The {what} rows {list(rows.windows)} have {len(rows.labels):,} labels, {positives:,} "
            "of them positive; both classes are needed for prediction sets.",
            remedy="Hold out more windows (training.validation_windows, exam.windows).",
        )
    good = (rows.probabilities >= 0) & (rows.probabilities <= 1)
    if not good.all():
        raise MetricError(
            f"{int((~good).sum()):,} answers to the {what} rows are not probabilities.",
            remedy="Do not use the model.",
        )
