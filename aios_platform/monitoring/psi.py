"""Population stability index over stored bins: drift without a second look at the reference.

The reference is read once, when a champion is trained, and kept as a handful of counts. A window
is then compared in one pass, over all of its rows.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.record import Record
from aios_platform.monitoring.statistics import measured_column, measured_fields, source_of

if TYPE_CHECKING:
    import pyarrow.dataset as pad

NUMERICAL_BINS = 10
DISCRETE_VALUES = 10
CATEGORIES = 30
# Reading and sorting release the interpreter's lock. Two bound the memory.
COLUMNS_AT_ONCE = 2


class ColumnBins(Record):
    """The bins of one column and how many reference rows fell into each.

    The last bin holds missing values (null or NaN). The one before holds every category that is
    not listed, among them those never seen before.
    """

    name: str
    kind: FieldKind
    edges: tuple[float, ...] = Field(
        default=(), description="Upper ends of all but the last numerical bin, ascending."
    )
    points: bool = Field(
        default=False, description="Whether the edges are the only values, each with its own bin."
    )
    categories: tuple[str, ...] = Field(default=(), description="Categories with their own bin.")
    counts: tuple[int, ...]

    @property
    def values(self) -> int:
        """Reference rows that have a value."""
        return sum(self.counts[:-1])


class ReferenceBins(Record):
    """The bins of all columns of a reference: the rows a champion was trained on."""

    rows: int = Field(ge=0)
    columns: tuple[ColumnBins, ...]


def reference_bins(
    frame: "pa.Table | pad.Dataset", fields: Iterable[FeatureField]
) -> ReferenceBins:
    """Bin a reference: deciles of numerical columns, the most frequent categories of others.

    A numerical column of few distinct values gets a bin for each of them, so that a value in
    between is noticed, too.

    Args:
        frame: Reference rows, in memory or as files; of files, two columns at a time are read.
        fields: The columns to bin, with their kinds; vectors and texts by their statistics.
    """

    def bins(field: FeatureField) -> ColumnBins:
        return _bins_of(field.name, field.kind, _column(frame, field.name))

    with ThreadPoolExecutor(COLUMNS_AT_ONCE) as pool:
        return ReferenceBins(
            rows=frame.num_rows if isinstance(frame, pa.Table) else frame.count_rows(),
            columns=tuple(pool.map(bins, measured_fields(fields))),
        )


def counts_of(bins: ColumnBins, column: pa.ChunkedArray) -> NDArray[np.int64]:
    """How many rows of a column fall into each bin, shape (bins,)."""
    if bins.kind is FieldKind.CATEGORICAL:
        return _category_counts(column, bins.categories)
    return _number_counts(_numbers(column), np.asarray(bins.edges), points=bins.points)


def psi(reference: NDArray[np.int64], current: NDArray[np.int64]) -> float:
    """Population stability index, sum of (c - r) · ln(c / r) over the shares of bins.

    Source: Siddiqi (2006), Credit Risk Scorecards. Half a row is added to every bin of both
    sides, so that an empty bin counts for as much as the number of rows allows to say.

    Args:
        reference: Rows per bin, shape (bins,).
        current: Rows per bin, shape (bins,).
    """
    r = (reference + 0.5) / (reference.sum() + 0.5 * reference.size)
    c = (current + 0.5) / (current.sum() + 0.5 * current.size)
    return float(((c - r) * np.log(c / r)).sum())


def chance_psi(bins: int, reference_rows: int, current_rows: int) -> float:
    """The PSI that one in a thousand windows reaches by chance, without any drift.

    Without drift, PSI / (1/n + 1/m) has about a chi-squared distribution of bins - 1 degrees of
    freedom (Yurdakul and Naranjo 2020, J. Risk Model Validation 14(4)); its quantile is Wilson
    and Hilferty's (1931).

    Args:
        bins: Bins that hold a row on either side.
        reference_rows: Rows of the reference.
        current_rows: Rows of the window.
    """
    if not (reference_rows > 0 and current_rows > 0):
        return float("inf")
    freedom = max(bins - 1, 1)
    z_999 = 3.0902
    spread = 2 / (9 * freedom)
    quantile = freedom * (1 - spread + z_999 * spread**0.5) ** 3
    return float(quantile * (1 / reference_rows + 1 / current_rows))


def _column(frame: "pa.Table | pad.Dataset", name: str) -> pa.ChunkedArray:
    if not isinstance(frame, pa.Table):
        frame = frame.to_table(columns=[source_of(name, frame.schema.names)])
    return measured_column(frame, name)


def _bins_of(name: str, kind: FieldKind, column: pa.ChunkedArray) -> ColumnBins:
    if kind is FieldKind.CATEGORICAL:
        found = pc.value_counts(column.cast(pa.string()).drop_null())
        pairs = zip(
            found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True
        )
        ranked = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        categories = tuple(value for value, _ in ranked[:CATEGORIES])
        counts = _category_counts(column, categories)
        return ColumnBins(name=name, kind=kind, categories=categories, counts=_plain(counts))
    numbers = _numbers(column)
    finite = numbers[np.isfinite(numbers)]
    quantiles = np.linspace(0, 1, NUMERICAL_BINS + 1)[1:-1]
    edges: NDArray[np.float64] = np.empty(0)
    points = False
    if finite.size:
        edges = np.unique(np.quantile(finite, quantiles, method="inverted_cdf"))
    if finite.size and np.unique(finite[: 50 * DISCRETE_VALUES]).size <= DISCRETE_VALUES:
        distinct = np.unique(finite)
        if distinct.size <= DISCRETE_VALUES:
            edges, points = distinct, True
    counts = _number_counts(numbers, edges, points=points)
    return ColumnBins(
        name=name,
        kind=kind,
        edges=tuple(float(edge) for edge in edges),
        points=points,
        counts=_plain(counts),
    )


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column as float64 with NaN where a value is missing."""
    numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def _number_counts(
    numbers: NDArray[np.float64], edges: NDArray[np.float64], *, points: bool
) -> NDArray[np.int64]:
    missing = np.isnan(numbers)
    present = numbers[~missing]
    places = np.searchsorted(edges, present, side="left")
    size = edges.size + 1
    if points:
        # An odd place is an edge itself, an even one lies between two.
        places = places + np.searchsorted(edges, present, side="right")
        size += edges.size
    counts = np.bincount(places, minlength=size)
    return np.append(counts, missing.sum()).astype(np.int64)


def _category_counts(column: pa.ChunkedArray, categories: tuple[str, ...]) -> NDArray[np.int64]:
    found = pc.value_counts(column.cast(pa.string()))
    places = {category: place for place, category in enumerate(categories)}
    counts = np.zeros(len(categories) + 2, dtype=np.int64)
    for value, count in zip(
        found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True
    ):
        counts[-1 if value is None else places.get(value, len(categories))] += count
    return counts


def _plain(counts: NDArray[np.int64]) -> tuple[int, ...]:
    return tuple(int(count) for count in counts)
