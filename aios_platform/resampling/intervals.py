"""An estimate with its interval, and what its bootstrap distribution says of a bound."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aios_platform.errors import MetricError


class Estimate(Protocol):
    """What every interval has, whether resampled (`Interval`) or computed (`PairedDifference`)."""

    @property
    def estimate(self) -> float:
        """The value on the rows as they are."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def high(self) -> float:
        """Upper end of the interval."""

    @property
    def confidence(self) -> float:
        """Two-sided confidence; each end is passed with half the rest."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def standard_error(self) -> float:
        """Standard error of the estimate."""

    def p_at_most(self, bound: float) -> float:
        """One-sided p-value of "the truth is at most `bound`": small when it is above."""

    def p_at_least(self, bound: float) -> float:
        """One-sided p-value of "the truth is at least `bound`": small when it is below."""


@dataclass(frozen=True)
class Interval:
    """A percentile interval (Efron and Tibshirani 1993, section 13.3).

    Attributes:
        estimate: The value on the rows as they are.
        low: Lower end.
        high: Upper end.
        confidence: Two-sided confidence; each end is passed with half the rest.
        resamples: Number of resamples.
        rows: Number of rows.
        standard_error: Standard deviation over the resamples.
        draws: The values of the resamples, shape (resamples,), sorted.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    resamples: int
    rows: int
    standard_error: float = float("nan")
    draws: NDArray[np.float64] = field(
        default_factory=lambda: np.empty(0), repr=False, compare=False
    )

    @classmethod
    def of(
        cls, estimate: float, draws: NDArray[np.float64], *, confidence: float, rows: int
    ) -> "Interval":
        """The interval of bootstrap draws, shape (resamples,).

        Raises:
            MetricError: A resample has no finite value.
        """
        bad = int((~np.isfinite(draws)).sum())
        if bad:
            raise MetricError(
                f"The metric has no value in {bad:,} of {draws.size:,} resamples of {rows:,} rows.",
                remedy="Take more rows: almost all labels are equal.",
            )
        tail = (1 - confidence) / 2
        ordered = np.sort(draws)
        low, high = np.quantile(ordered, [tail, 1 - tail])
        return cls(
            estimate,
            float(low),
            float(high),
            confidence,
            draws.size,
            rows,
            float(ordered.std(ddof=1)),
            ordered,
        )

    def p_at_most(self, bound: float) -> float:
        """One-sided p-value of "the truth is at most `bound`": small when it is above.

        The share of resamples at or below the bound, which inverts the percentile interval; one
        is added above and below, so that it is never 0 (Davison and Hinkley 1997, section 4.2).
        With n resamples it cannot be smaller than 1 / (n + 1).
        """
        return self._share(np.searchsorted(self.draws, bound, side="right"))

    def p_at_least(self, bound: float) -> float:
        """One-sided p-value of "the truth is at least `bound`": small when it is below."""
        return self._share(self.draws.size - np.searchsorted(self.draws, bound, side="left"))

    def _share(self, count: np.intp | int) -> float:
        return float((1 + count) / (1 + self.draws.size))
