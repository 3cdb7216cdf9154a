"""Paired tests with a formula: DeLong for ROC AUC, McNemar for accuracy.

Both compare two models on the same rows, and give the difference as "how much better the first
is", with its standard error, interval and p-values. The bootstrap (`resampling`) does the same for
any metric; these are exact where it simulates, and cost one sort.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.errors import MetricError
from aios_platform.metrics import Labels, Scores, checked, checked_labels, checked_scores

EXACT_BELOW = 25
"""Fewer discordant rows than this are tested exactly."""


@dataclass(frozen=True)
class PairedDifference:
    """The difference of a metric between two models on the same rows.

    Attributes:
        estimate: Value of the first model less that of the second.
        standard_error: Its standard error.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Two-sided confidence of the interval.
        p_value: Two-sided, of "there is no difference".
        rows: Number of rows.
        method: The test, in words.
        freedom: Degrees of freedom of Student's t; infinite: normal.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    confidence: float
    p_value: float
    rows: int
    method: str
    freedom: float = math.inf

    def p_at_most(self, bound: float) -> float:
        """One-sided p-value of "the truth is at most `bound`": small when it is above.

        By Student's t or the normal, about the middle of the interval.
        """
        return 1 - self.p_at_least(bound) if self.standard_error > 0 else self._certain(1, bound)

    def p_at_least(self, bound: float) -> float:
        """One-sided p-value of "the truth is at least `bound`": small when it is below."""
        if not self.standard_error > 0:
            return self._certain(-1, bound)
        middle = (self.low + self.high) / 2
        return _below((middle - bound) / self.standard_error, self.freedom)

    def _certain(self, side: int, bound: float) -> float:
        return float(side * self.estimate <= side * bound)


def delong(
    labels: ArrayLike, scores: ArrayLike, reference: ArrayLike, *, confidence: float = 0.95
) -> PairedDifference:
    """Difference of the ROC AUC of two models on the same rows.

    Source: DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44:837-845. The placement values
    are found by sorting, in O(n log n), which equals the midranks of Sun and Xu (2014), IEEE
    Signal Processing Letters 21:1389-1393. Where a class has few rows its variance is uncertain
    itself: the interval is Student's t with the degrees of freedom of Satterthwaite (1946), which
    for more than some hundred rows of each class is the usual normal one. Still, with fewer than
    about 20 rows of a class it errs more often than stated (docs/statistics.md has figures).

    Args:
        labels: Shape (n,), bool or 0 and 1; at least two rows of each class.
        scores: Shape (n,), probabilities of the first model.
        reference: Shape (n,), probabilities of the second model.
        confidence: Two-sided confidence.

    Raises:
        MetricError: No AUC can be computed from the input, or a class has a single row.
    """
    truth, values = checked(labels, scores)
    others = checked_scores(reference, truth.size)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if min(positives, negatives) < 2:
        raise MetricError(
            f"The rows have {positives:,} positives and {negatives:,} negatives; the variance of "
            "an AUC needs two of each.",
            remedy="Take more rows.",
        )
    placed, placed_reference = _placements(truth, values), _placements(truth, others)
    of_positives = placed[0] - placed_reference[0]
    of_negatives = placed[1] - placed_reference[1]
    # The variance of the difference at once: what both models share cancels before it is squared.
    parts = of_positives.var(ddof=1) / positives, of_negatives.var(ddof=1) / negatives
    error = math.sqrt(sum(parts))
    difference = float(of_positives.mean())
    freedom, p_value = math.inf, float(difference == 0)
    if error > 0:
        freedom = error**4 / (parts[0] ** 2 / (positives - 1) + parts[1] ** 2 / (negatives - 1))
        p_value = 2 * _below(-abs(difference) / error, freedom)
    reach = _quantile((1 + confidence) / 2, freedom) * error
    return PairedDifference(
        estimate=difference,
        standard_error=error,
        low=difference - reach,
        high=difference + reach,
        confidence=confidence,
        p_value=p_value,
        rows=truth.size,
        method="DeLong",
        freedom=freedom,
    )


def mcnemar(
    correct: ArrayLike, reference: ArrayLike, *, confidence: float = 0.95
) -> PairedDifference:
    """Difference of the accuracy of two models on the same rows, of any number of classes.

    Only rows on which one is right and the other wrong count. p-value: McNemar (1947), below
    `EXACT_BELOW` such rows the exact binomial test, else chi-square with the continuity
    correction of Edwards (1948). Interval: Agresti and Min (2005), Statistics in Medicine
    24:729-740, which adds half a row to each cell and holds its level for few rows, too; its
    standard error is the one reported.

    Args:
        correct: Shape (n,), whether the first model is right, bool or 0 and 1.
        reference: Shape (n,), the same of the second model.
        confidence: Two-sided confidence.

    Raises:
        MetricError: The input is not one yes or no per row and model.
    """
    first, second = checked_labels(correct), checked_labels(reference)
    if first.shape != second.shape:
        raise MetricError(
            f"The models have {first.size:,} and {second.size:,} answers.",
            remedy="Score both models on the same rows.",
        )
    rows = first.size
    better, worse = int((first & ~second).sum()), int((~first & second).sum())
    discordant = better + worse
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, k) for k in range(min(better, worse) + 1))
        p_value, method = min(1.0, 2 * tail / 2**discordant), "McNemar, exact"
    else:
        z = max(0, abs(better - worse) - 1) / math.sqrt(discordant)
        p_value, method = 2 * NormalDist().cdf(-z), "McNemar, continuity-corrected"
    padded = rows + 2
    middle = (better - worse) / padded
    error = math.sqrt(discordant + 1 - (better - worse) ** 2 / padded) / padded
    reach = _quantile((1 + confidence) / 2, math.inf) * error
    return PairedDifference(
        estimate=(better - worse) / rows,
        standard_error=error,
        low=max(-1.0, middle - reach),
        high=min(1.0, middle + reach),
        confidence=confidence,
        p_value=p_value,
        rows=rows,
        method=method,
    )


def _placements(truth: Labels, scores: Scores) -> tuple[Scores, Scores]:
    """For each positive the share of negatives below it, for each negative of positives above."""
    positives, negatives = scores[truth], scores[~truth]
    of_positives = _midplace(negatives, positives) / negatives.size
    of_negatives = 1 - _midplace(positives, negatives) / positives.size
    return of_positives, of_negatives


def _midplace(among: Scores, values: Scores) -> NDArray[np.float64]:
    ordered = np.sort(among)
    left = np.searchsorted(ordered, values, side="left")
    return (left + np.searchsorted(ordered, values, side="right")) / 2


def _below(value: float, freedom: float) -> float:
    """Distribution function of Student's t."""
    if math.isinf(freedom):
        return NormalDist().cdf(value)
    from scipy.special import stdtr

    return float(stdtr(freedom, value))


def _quantile(probability: float, freedom: float) -> float:
    if math.isinf(freedom):
        return NormalDist().inv_cdf(probability)
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))
