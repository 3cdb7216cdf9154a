"""Calibration in detail: the reliability curve and the decomposition of the Brier score.

The calibration errors themselves (`ece`, `ece_debiased`) are metrics of the registry. For a
multiclass model take the top label: `multiclass.correct(codes, scores)` against
`scores.max(axis=1)`.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from aios_platform.metrics.binning import ECE_BINS, calibration_bins, reliability_of, sums
from aios_platform.metrics.checks import Codes, Labels, Scores, checked_binary


@dataclass(frozen=True)
class ReliabilityCurve:
    """How often what was predicted came true, by bins of equal mass; empty bins are left out.

    Attributes:
        score: Mean score of each bin, shape (bins,), ascending.
        share: Share of positives of each bin, shape (bins,).
        low: Lower end of the share's interval, shape (bins,).
        high: Upper end of the share's interval, shape (bins,).
        rows: Rows of each bin, shape (bins,).
        confidence: Two-sided confidence of each interval by itself.
    """

    score: Scores
    share: Scores
    low: Scores
    high: Scores
    rows: Scores
    confidence: float


@dataclass(frozen=True)
class BrierDecomposition:
    """The Brier score in parts: what calibration costs, and what telling rows apart gains.

    brier = reliability - resolution + uncertainty + within_variance - within_covariance, exactly.

    Attributes:
        brier: Mean squared error of the probabilities.
        reliability: Mean squared gap between score and share of positives of a bin; 0 is perfect.
        reliability_debiased: The same less what the noise of the labels adds; can be below 0.
        resolution: How far the bins' shares lie from the base rate, squared; more is better.
        uncertainty: Variance of the labels, which no model changes.
        within_variance: Mean variance of the scores inside a bin.
        within_covariance: Twice the mean covariance of scores and labels inside a bin.
    """

    brier: float
    reliability: float
    reliability_debiased: float
    resolution: float
    uncertainty: float
    within_variance: float
    within_covariance: float

    @property
    def generalized_resolution(self) -> float:
        """Resolution that does not depend on the bins: brier = reliability - this + uncertainty."""
        return self.resolution - self.within_variance + self.within_covariance


def reliability_curve(
    labels: ArrayLike, scores: ArrayLike, *, bins: int = ECE_BINS, confidence: float = 0.95
) -> ReliabilityCurve:
    """The reliability curve with Wilson intervals.

    Source: Wilson (1927); Brown, Cai and DasGupta (2001), Statistical Science 16:101-133, for why
    not the normal interval, which has no width where a bin holds one class.

    Args:
        labels: Shape (n,), bool or 0 and 1.
        scores: Shape (n,), probabilities of the positive class.
        bins: Bins of equal mass.
        confidence: Two-sided confidence of each interval.

    Raises:
        MetricError: No curve can be computed from the input.
    """
    truth, values = checked_binary(labels, scores)
    rows, score, share, _ = _by_bin(truth, values, bins)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    reach = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return ReliabilityCurve(
        score=score,
        share=share,
        # Rounding alone puts an end of 0 or 1 a hair beside it.
        low=np.where(share == 0, 0.0, middle - reach),
        high=np.where(share == 1, 1.0, middle + reach),
        rows=rows,
        confidence=confidence,
    )


def brier_decomposition(
    labels: ArrayLike, scores: ArrayLike, *, bins: int = ECE_BINS
) -> BrierDecomposition:
    """The Brier score taken apart over bins of equal mass.

    Source: Murphy (1973), Journal of Applied Meteorology 12:595-600, whose three parts add up when
    all scores of a bin are equal; the two terms for what differs inside a bin are of Stephenson,
    Coelho and Jolliffe (2008), Weather and Forecasting 23:752-757. For the debiased
    reliability see `metrics.binning.reliability_of`.

    Args:
        labels: Shape (n,), bool or 0 and 1.
        scores: Shape (n,), probabilities of the positive class.
        bins: Bins of equal mass.

    Raises:
        MetricError: No metric can be computed from the input.
    """
    truth, values = checked_binary(labels, scores)
    rows, score, share, place = _by_bin(truth, values, bins)
    weight, base = rows / truth.size, truth.mean()
    gaps, positives = rows * (score - share), rows * share
    apart, off = values - score[place], truth - share[place]
    return BrierDecomposition(
        brier=float(((values - truth) ** 2).mean()),
        reliability=reliability_of(gaps, positives, rows, noise=0),
        reliability_debiased=reliability_of(gaps, positives, rows),
        resolution=float((weight * (share - base) ** 2).sum()),
        uncertainty=float(base * (1 - base)),
        within_variance=float((apart**2).mean()),
        within_covariance=float(2 * (apart * off).mean()),
    )


def _by_bin(truth: Labels, scores: Scores, bins: int) -> tuple[Scores, Scores, Scores, Codes]:
    """Rows, mean score and share of positives of each filled bin, and the bin of each row."""
    _, place = np.unique(calibration_bins(scores, bins), return_inverse=True)
    count = int(place.max()) + 1
    rows = sums(place, np.ones(truth.size), count)
    score = sums(place, scores, count) / rows
    share = sums(place, truth.astype(np.float64), count) / rows
    return rows, score, share, place
