"""What an interval of a paired difference allows one to say.

A gain is how much better the candidate is than its reference, positive whatever the metric. It is
an `Interval` of the bootstrap or a `PairedDifference` of DeLong or McNemar.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aios_platform.contracts.decisions import Outcome
from aios_platform.errors import MetricError
from aios_platform.promotion.paired import PairedDifference, delong, mcnemar
from aios_platform.resampling import Estimate

__all__ = [
    "PairedDifference",
    "delong",
    "detectable",
    "holm",
    "mcnemar",
    "non_inferiority",
    "p_inferior",
    "p_non_inferior",
    "p_superior",
    "superiority",
]


def non_inferiority(gain: Estimate, margin: float) -> Outcome:
    """Whether a candidate is worse than its reference by less than a margin.

    The two-sided interval is held against the margin, as in non-inferiority trials (Piaggio et
    al. 2012, JAMA 308:2594-2604): each side errs with half of 1 - confidence.

    Args:
        gain: Interval of the paired difference.
        margin: How much worse is tolerated, 0 or more.

    Returns:
        PASS when the whole interval lies at or above -margin, FAIL when all of it lies below,
        UNKNOWN when it spans the margin or is not a number.
    """
    if gain.low >= -margin:
        return Outcome.PASS
    if gain.high < -margin:
        return Outcome.FAIL
    return Outcome.UNKNOWN


def superiority(gain: Estimate) -> Outcome:
    """Whether a candidate is better than its reference.

    Returns:
        PASS when the whole interval lies above 0, FAIL when the candidate is no better even at
        the interval's upper end, UNKNOWN otherwise.
    """
    if gain.low > 0:
        return Outcome.PASS
    if gain.high <= 0:
        return Outcome.FAIL
    return Outcome.UNKNOWN


def p_non_inferior(gain: Estimate, margin: float) -> float:
    """One-sided p-value of "worse by the margin or more"; small: shown to be non-inferior."""
    return gain.p_at_most(-margin)


def p_inferior(gain: Estimate, margin: float) -> float:
    """One-sided p-value of "worse by no more than the margin"; small: shown to be inferior."""
    return gain.p_at_least(-margin)


def p_superior(gain: Estimate) -> float:
    """One-sided p-value of "no better"; small: shown to be better."""
    return gain.p_at_most(0.0)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for their number by Holm's step-down procedure.

    Rejecting all whose adjusted value is at most alpha keeps the probability of any false
    rejection at alpha or below, however the tests depend on each other.

    Source: Holm (1979), Scandinavian Journal of Statistics 6:65-70.

    Args:
        p_values: Shape (m,), in [0, 1].

    Returns:
        Adjusted p-values, shape (m,), in the order given: none below its raw value, none above 1.

    Raises:
        MetricError: A value is not a probability.
    """
    raw = np.asarray(p_values, dtype=np.float64)
    if raw.ndim != 1 or not ((raw >= 0) & (raw <= 1)).all():
        raise MetricError(
            f"The p-values are not all probabilities: {raw.tolist()}.",
            remedy="Leave out the tests that gave none.",
        )
    order = np.argsort(raw, kind="stable")
    factors = np.arange(raw.size, 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * factors))
    return adjusted


def detectable(gain: Estimate, *, power: float = 0.8) -> float:
    """Minimum detectable difference: the smallest that so many rows show with this power.

    (z(1 - alpha) + z(power)) times the standard error, with alpha = (1 - confidence) / 2 for the
    one side that is claimed. For non-inferiority it is the distance from the margin: a candidate
    must truly be `detectable - margin` better than its reference to be shown non-inferior with
    this power (less than 0: it may be somewhat worse).

    Source: Julious (2004), Statistics in Medicine 23:1921-1986, sections 3 and 6.

    Args:
        gain: Interval of the paired difference.
        power: Probability of showing it.
    """
    normal = NormalDist()
    return (normal.inv_cdf((1 + gain.confidence) / 2) + normal.inv_cdf(power)) * gain.standard_error
