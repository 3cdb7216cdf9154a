"""A delivered table in a few numbers, so that windows can be compared without being read again."""

from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from pydantic import Field

from aios_platform.contracts.declaration import ColumnType, Table
from aios_platform.contracts.record import Record

QUANTILES = tuple(round(q, 2) for q in np.linspace(0.05, 0.95, 19))
MOST_CATEGORIES = 500
# Enough for a rank correlation to be right within 0.03.
SAMPLED_ROWS = 5_000
NUMERIC = (ColumnType.INT, ColumnType.FLOAT)


class ColumnSummary(Record):
    """One column of one window."""

    missing: float = Field(ge=0, le=1, description="Share of rows without a value.")
    distinct: int = Field(ge=0, description="Different values.")
    low: float | None = Field(default=None, description="Smallest value; numbers only.")
    high: float | None = Field(default=None, description="Largest value; numbers only.")
    quantiles: tuple[float, ...] = Field(
        default=(),
        description="At 5 %, 10 % ... 95 %; without 0 where half are 0.",
    )
    categories: tuple[str, ...] | None = Field(
        default=None, description="Every value; None for numbers and for too many values."
    )
    shares: tuple[float, ...] = Field(default=(), description="Share of rows of each category.")


class TableSummary(Record):
    """One delivered table of one window, without its bad rows."""

    rows: int = Field(ge=0)
    quarantined: int = Field(ge=0, description="Bad rows, which were taken out.")
    repeated: float = Field(
        ge=0, le=1, description="Share of rows that repeat another one in all but its id."
    )
    columns: dict[str, ColumnSummary]
    correlations: dict[str, float] = Field(
        description="Spearman's rank correlation of each pair of numerical columns, 'a|b'."
    )


def summarise(table: pa.Table, declared: Table, *, quarantined: int) -> TableSummary:
    """Reduce a table to what faults are looked for in.

    Args:
        table: The good rows, with the declared columns.
        declared: Its declaration.
        quarantined: Bad rows that were taken out of it.
    """
    import polars as pl

    frame = pl.DataFrame(table)
    rest = [name for name in declared.columns if name not in declared.row_id]
    numeric = [name for name in rest if declared.columns[name].type in NUMERIC]
    texts = [name for name in rest if declared.columns[name].type is ColumnType.STRING]
    columns = {name: _number(frame[name]) for name in numeric}
    columns |= {name: _text(frame[name]) for name in texts}
    # A table whose id is made of its values (a reading per place and hour) cannot repeat itself.
    alone = len(declared.row_id) == 1 and bool(rest)
    repeats = frame.select(rest).hash_rows().n_unique() if alone and frame.height else None
    return TableSummary(
        rows=frame.height,
        quarantined=quarantined,
        repeated=0.0 if repeats is None else 1 - repeats / frame.height,
        columns=columns,
        correlations=_correlations(frame, numeric),
    )


def tables_of(summaries: Iterable[Mapping[str, TableSummary]], table: str) -> list[TableSummary]:
    """The summaries of one table, of the windows that have it."""
    return [found[table] for found in summaries if table in found]


def _number(column: "object") -> ColumnSummary:
    import polars as pl

    assert isinstance(column, pl.Series)
    values = column.cast(pl.Float64).drop_nulls().to_numpy()
    values = values[np.isfinite(values)]
    if not values.size:
        return ColumnSummary(missing=1.0 if len(column) else 0.0, distinct=0)
    # A column that is mostly 0 (rain) says what it says where it is not.
    told = values[values != 0]
    told = values if told.size > values.size / 2 or told.size < 100 else told
    return ColumnSummary(
        missing=1 - values.size / len(column),
        distinct=int(np.unique(values).size),
        low=float(values.min()),
        high=float(values.max()),
        quantiles=tuple(float(q) for q in np.quantile(told, QUANTILES)),
    )


def _text(column: "object") -> ColumnSummary:
    import polars as pl

    assert isinstance(column, pl.Series)
    counts = column.drop_nulls().value_counts(sort=True)
    present, distinct = int(counts["count"].sum()), counts.height
    few = 0 < distinct <= MOST_CATEGORIES
    return ColumnSummary(
        missing=1 - present / len(column) if len(column) else 0.0,
        distinct=distinct,
        categories=tuple(counts[column.name].to_list()) if few else None,
        shares=tuple((counts["count"] / present).to_list()) if few else (),
    )


def _correlations(frame: "object", names: list[str]) -> dict[str, float]:
    """Spearman's correlation of each pair, over the rows in which every column has a value."""
    import polars as pl

    assert isinstance(frame, pl.DataFrame)
    step = max(1, frame.height // SAMPLED_ROWS)
    # A column that is mostly empty would leave no whole row of the others.
    filled = [n for n in names if frame[n].null_count() < frame.height / 4]
    whole = frame.select(filled).gather_every(step).drop_nulls()
    if whole.height < 100 or len(filled) < 2:
        return {}
    ranked = whole.select(pl.all().rank("average"))
    matrix = ranked.to_numpy()
    spread = matrix.std(axis=0)
    matrix = (matrix - matrix.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    found = matrix.T @ matrix / whole.height
    return {
        f"{one}|{other}": round(float(found[i, j]), 4)
        for i, one in enumerate(filled)
        for j, other in enumerate(filled)
        if i < j and spread[i] > 0 and spread[j] > 0
    }
