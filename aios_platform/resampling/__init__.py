"""Bootstrap intervals of metrics, and of the paired difference between two models."""

from aios_platform.resampling.bootstrap import (
    gain_interval,
    gain_intervals,
    metric_interval,
    metric_intervals,
    seed_of,
)
from aios_platform.resampling.intervals import Estimate, Interval

__all__ = [
    "Estimate",
    "Interval",
    "gain_interval",
    "gain_intervals",
    "metric_interval",
    "metric_intervals",
    "seed_of",
]
