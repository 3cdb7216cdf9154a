"""How good the quantiles of a regression are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PINBALL = "pinball"
INTERVAL_COVERAGE = "interval_coverage"
COVERAGE = "coverage_"
"""Before the level of a quantile: the share of rows whose truth is at most that quantile."""


def quantile_metrics(
    targets: NDArray[Any], predicted: NDArray[Any], levels: Sequence[float]
) -> dict[str, float]:
    """Pinball loss and coverage; empty where no level is declared.

    The pinball loss (Koenker and Bassett 1978, Econometrica 46:33-50) is the mean over rows and
    levels, in the unit of the labels; less is better. A good quantile of level 0.9 has a coverage
    of 0.9. `interval_coverage` is of the interval between the outermost quantiles.

    Args:
        targets: Checked labels, shape (n,), n > 0.
        predicted: Finite predictions, shape (n, levels).
        levels: Rising levels within (0, 1).
    """
    if not levels:
        return {}
    errors = targets[:, np.newaxis] - predicted
    each = np.asarray(levels)
    found = {PINBALL: float(np.maximum(each * errors, (each - 1) * errors).mean())}
    for level, share in zip(levels, (errors <= 0).mean(axis=0).tolist(), strict=True):
        found[f"{COVERAGE}{level:g}"] = share
    if len(levels) > 1:
        inside = (errors[:, 0] >= 0) & (errors[:, -1] <= 0)
        found[INTERVAL_COVERAGE] = float(inside.mean())
    return found


def coverage_error(metrics: dict[str, float], levels: Sequence[float]) -> float | None:
    """Largest |coverage - level| over the levels; None where a coverage was not measured."""
    shares = [metrics.get(f"{COVERAGE}{level:g}") for level in levels]
    if not shares or None in shares:
        return None
    return max(abs(s - level) for s, level in zip(shares, levels, strict=True) if s is not None)
