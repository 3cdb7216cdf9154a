"""Equal-mass bins, and the calibration error over them."""

import math

import numpy as np
from numpy.typing import NDArray

from aios_platform.metrics.checks import Labels, Scores

ECE_BINS = 15


def calibration_bins(scores: Scores, bins: int = ECE_BINS) -> NDArray[np.intp]:
    """The equal-mass bin of each row, shape (n,), values 0 to bins - 1; equal scores share one."""
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    edges = np.quantile(scores, inner, method="inverted_cdf")
    return np.searchsorted(edges, scores, side="left")


def sums(places: NDArray[np.intp], values: Scores, bins: int) -> Scores:
    """Sum of the values at each place, shape (bins,), float64."""
    found: Scores = np.bincount(places, values, bins).astype(np.float64, copy=False)
    return found


def binned_ece(truth: Labels, scores: Scores, bins: int = ECE_BINS) -> float:
    """Row-weighted mean over bins of |mean score - share of positives|. Checked input."""
    gaps = sums(calibration_bins(scores, bins), scores - truth, bins)
    return float(np.abs(gaps).sum() / truth.size)


def binned_ece_debiased(truth: Labels, scores: Scores, bins: int = ECE_BINS) -> float:
    """`binned_ece` less the bias that the noise of the labels puts into it. Checked input."""
    places = calibration_bins(scores, bins)
    return debiased(
        gaps=sums(places, scores - truth, bins),
        positives=sums(places, truth.astype(np.float64), bins),
        rows=sums(places, np.ones(truth.size), bins),
    )


def debiased(gaps: Scores, positives: Scores, rows: Scores) -> float:
    """Calibration error from the sums of each bin, less its bias.

    The share of positives of a bin with r rows has a standard error s, s² = share · (1 - share)
    / r; so even a perfectly calibrated model shows |gap| > 0. Following Kumar, Liang and Ma (2019,
    section 5 and their library's normal_debiased_ce) the excess of E|N(gap, s²)| over |gap| is
    subtracted; here in closed form, as the mean of a folded normal (Leone et al. 1961), where
    they simulate. Where the gap is all noise this still leaves some: it shrinks the bias, and does
    not remove it. Never below 0.

    Args:
        gaps: Sum over a bin's rows of score - label, shape (bins,).
        positives: Positives of a bin, shape (bins,).
        rows: Rows of a bin, shape (bins,); may be 0.
    """
    filled = rows > 0
    count = rows[filled]
    gap = np.abs(gaps[filled]) / count
    share = np.clip(positives[filled] / count, 0, 1)
    error = np.sqrt(share * (1 - share) / count)
    # A bin of one class has no visible noise, and no bias to subtract.
    noisy = error > 0
    ratio = gap[noisy] / error[noisy]
    folded = gap.copy()
    folded[noisy] = error[noisy] * (
        math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + ratio * (2 * normal_cdf(ratio) - 1)
    )
    return float(max(0.0, (count * (2 * gap - folded)).sum() / rows.sum()))


def binned_reliability(truth: Labels, scores: Scores, bins: int = ECE_BINS) -> float:
    """Reliability of the Brier score less the noise of the labels. Checked input."""
    places = calibration_bins(scores, bins)
    return reliability_of(
        gaps=sums(places, scores - truth, bins),
        positives=sums(places, truth.astype(np.float64), bins),
        rows=sums(places, np.ones(truth.size), bins),
    )


def reliability_of(gaps: Scores, positives: Scores, rows: Scores, *, noise: float = 1) -> float:
    """Mean squared gap between score and share of positives, less what is noise of the labels.

    The squared gap of a bin with r rows has the bias share · (1 - share) / r, of which
    share · (1 - share) / (r - 1) is an unbiased estimate: the debiased squared calibration error
    of Kumar, Liang and Ma (2019, section 5). It can be below 0. Bins of one row show no variance
    and are left as they are.

    Args:
        gaps: Sum over a bin's rows of score - label, shape (bins,).
        positives: Positives of a bin, shape (bins,).
        rows: Rows of a bin, shape (bins,); may be 0.
        noise: How often the bias is subtracted; 0: Murphy's reliability as it is.
    """
    count = np.maximum(rows, 1)
    share = positives / count
    excess = np.where(rows > 1, share * (1 - share) / np.maximum(rows - 1, 1), 0.0)
    return float((rows * ((gaps / count) ** 2 - noise * excess)).sum() / rows.sum())


def normal_cdf(values: Scores) -> Scores:
    """Distribution function of the standard normal, shape as given."""
    halves = [math.erfc(-value / math.sqrt(2)) / 2 for value in np.ravel(values).tolist()]
    return np.array(halves, dtype=np.float64).reshape(np.shape(values))
