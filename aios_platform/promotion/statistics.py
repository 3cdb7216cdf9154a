"""What an interval of a paired difference allows one to say.

A gain is how much better the candidate is than its reference, positive whatever the metric.
"""

from aios_platform.contracts.decisions import Outcome
from aios_platform.resampling import Interval


def non_inferiority(gain: Interval, margin: float) -> Outcome:
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


def superiority(gain: Interval) -> Outcome:
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
