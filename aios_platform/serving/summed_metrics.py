"""Counters and histograms that add up in memory until somebody looks.

`prometheus_client` takes a lock per value, and with several processes writes each to a file: a
microsecond or more for every figure of every request. These are for one thread, the event loop's.
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

# From so many values on numpy is quicker than a loop.
MANY = 48
_children: list["SummedCounter | SummedHistogram"] = []


class SummedCounter(Counter):
    """A counter; see the module."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._waiting = 0.0
        _children.append(self)

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Add an amount that is not negative; exemplars are not kept."""
        del exemplar
        self._waiting += amount

    def settle(self) -> None:
        """Hand on what was added up."""
        waiting, self._waiting = self._waiting, 0.0
        if waiting:
            super().inc(waiting)

    def _child_samples(self) -> Iterable[Any]:
        self.settle()
        return super()._child_samples()


class SummedHistogram(Histogram):
    """A histogram; see the module."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._bounds: list[float] = list(self._upper_bounds)
        self._counts = [0] * len(self._bounds)
        self._waiting = 0.0
        _children.append(self)

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count a value, which must not be NaN; exemplars are not kept."""
        del exemplar
        self._counts[bisect_left(self._bounds, amount)] += 1
        self._waiting += amount

    def observe_many(self, values: NDArray[Any]) -> None:
        """Count values of any shape; NaN is passed over."""
        if values.size < MANY:
            counts, bounds = self._counts, self._bounds
            for value in values.ravel().tolist():
                if value == value:
                    counts[bisect_left(bounds, value)] += 1
                    self._waiting += value
            return
        known = values[~np.isnan(values)]
        places = np.searchsorted(np.array(self._bounds), known, side="left")
        for place, count in enumerate(np.bincount(places, minlength=len(self._bounds)).tolist()):
            self._counts[place] += count
        self._waiting += float(known.sum(dtype=float))

    def settle(self) -> None:
        """Hand on what was added up."""
        for place, count in enumerate(self._counts):
            if count:
                self._counts[place] = 0
                self._buckets[place].inc(count)
        waiting, self._waiting = self._waiting, 0.0
        if waiting:
            self._sum.inc(waiting)

    def _child_samples(self) -> Iterable[Any]:
        self.settle()
        return super()._child_samples()


def settle() -> None:
    """Hand on what all of them added up: where another process is to read it."""
    for child in _children:
        child.settle()
