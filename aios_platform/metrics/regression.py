"""Metrics of regressions. All functions take checked input: two arrays of shape (n,).

There is no mean absolute percentage error: it is undefined where a label is 0, and near 0 a single
row decides it.
"""

from collections.abc import Callable

import numpy as np

from aios_platform.errors import MetricError
from aios_platform.metrics.checks import Scores


def mae(targets: Scores, predictions: Scores) -> float:
    """Mean absolute error, in the unit of the labels."""
    return float(np.abs(predictions - targets).mean())


def rmse(targets: Scores, predictions: Scores) -> float:
    """Root of the mean squared error, in the unit of the labels."""
    return float(np.sqrt(((predictions - targets) ** 2).mean()))


def r2(targets: Scores, predictions: Scores) -> float:
    """Coefficient of determination: 1 - squared error over that of the labels' own mean.

    Raises:
        MetricError: All labels are equal, so that there is nothing to explain.
    """
    if (targets == targets[0]).all():
        raise MetricError(
            f"All {targets.size:,} labels are {targets[0]:g}; r2 is undefined.",
            remedy="Take rows whose labels differ, or another metric.",
        )
    residual = ((predictions - targets) ** 2).sum()
    return float(1 - residual / ((targets - targets.mean()) ** 2).sum())


METRICS: dict[str, Callable[[Scores, Scores], float]] = {"rmse": rmse, "mae": mae, "r2": r2}
