"""Tests of "nothing changed", per feature, with the share of false discoveries under control.

Rows of one window are seldom independent (flights of one day share its weather), so that a small
p-value says less than it seems to. It is why no feature drifts by a test alone: the PSI must be
large as well.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
MIN_ROWS = 30


def kolmogorov_smirnov(one: Numbers, other: Numbers) -> tuple[float, float]:
    """Largest distance of two empirical distributions, and the p-value of it.

    Source: Kolmogorov's limiting distribution with Stephens's (1970, JRSS B 32) correction for
    samples of finite size. With ties the p-value is too large, never too small.

    Args:
        one: Shape (n,), finite.
        other: Shape (m,), finite.
    """
    n, m = one.size, other.size
    if not (n > 0 and m > 0):
        return 0.0, 1.0
    one, other = np.sort(one), np.sort(other)
    points = np.concatenate([one, other])
    gap = np.searchsorted(one, points, side="right") / n
    gap -= np.searchsorted(other, points, side="right") / m
    distance = float(np.abs(gap).max())
    effective = math.sqrt(n * m / (n + m))
    x = (effective + 0.12 + 0.11 / effective) * distance
    if x < 0.2:
        return distance, 1.0
    k = np.arange(1, 101)
    tail = 2 * float((np.where(k % 2, 1.0, -1.0) * np.exp(-2 * (k * x) ** 2)).sum())
    return distance, min(max(tail, 0.0), 1.0)


def chi_squared(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """p-value of Pearson's test that two rows of counts have the same shares.

    Bins in which fewer than five rows are expected on either side are put together, so that
    none is left (Cochran 1954, Biometrics 10).

    Args:
        one: Shape (bins,).
        other: Shape (bins,).
    """
    from scipy.special import gammaincc

    n, m = int(one.sum()), int(other.sum())
    if not (n > 0 and m > 0):
        return 1.0
    expected_rows = (one + other) * (min(n, m) / (n + m))
    few = expected_rows < 5
    if expected_rows[few].sum() < 5 and not few.all():
        # Too little even together: it joins the smallest of the others.
        few |= expected_rows == expected_rows[~few].min()
    table = np.stack([np.append(row[~few], row[few].sum()) for row in (one, other)])
    table = table[:, table.sum(axis=0) > 0]
    freedom = table.shape[1] - 1
    if freedom < 1:
        return 1.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / (n + m)
    statistic = float(((table - expected) ** 2 / expected).sum())
    return float(gammaincc(freedom / 2, statistic / 2))


def wasserstein(one: Numbers, other: Numbers) -> float | None:
    """Wasserstein's distance of order 1, in standard deviations of the second sample.

    Args:
        one: Shape (n,), finite.
        other: Shape (m,), finite.

    Returns:
        None where the second sample is empty or constant, and so gives no unit.
    """
    spread = float(other.std()) if other.size else 0.0
    if not (one.size and spread > 0):
        return None
    points = (np.arange(200) + 0.5) / 200
    return float(np.abs(np.quantile(one, points) - np.quantile(other, points)).mean() / spread)


def jensen_shannon(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Jensen-Shannon distance of two rows of counts, base 2: 0 (equal) to 1 (nothing shared).

    Source: Lin (1991), IEEE Transactions on Information Theory 37; the distance is the root.
    """
    if not (one.sum() > 0 and other.sum() > 0):
        return 0.0
    p, q = one / one.sum(), other / other.sum()
    middle = (p + q) / 2

    def against(share: Numbers) -> float:
        used = share > 0
        return float((share[used] * np.log2(share[used] / middle[used])).sum())

    return math.sqrt(min(max((against(p) + against(q)) / 2, 0.0), 1.0))


def benjamini_hochberg(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: calling those below q keeps the expected share of false ones under q.

    Source: Benjamini and Hochberg (1995), JRSS B 57. It holds for tests that are independent or
    positively dependent (Benjamini and Yekutieli 2001), as those of related features are.
    """
    ranked: Sequence[tuple[str, float]] = sorted(p_values.items(), key=lambda pair: -pair[1])
    count, least = len(ranked), 1.0
    adjusted = {}
    for place, (name, p) in enumerate(ranked):
        least = min(least, p * count / (count - place))
        adjusted[name] = least
    return {name: adjusted[name] for name in p_values}
