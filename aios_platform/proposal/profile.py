"""What a file's columns are like, from one pass over it and a sample of its rows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pad

from aios_platform.columns import is_list, is_text
from aios_platform.contracts.record import nearest
from aios_platform.data.delta import delta_table, is_delta
from aios_platform.data.stored import as_instants
from aios_platform.errors import DataError

BATCH_ROWS = 65_536
SAMPLE_ROWS = 50_000
MOST_VALUES = 50
LONG_TEXT = 60


@dataclass
class ColumnProfile:
    """One column.

    Attributes:
        name: Its name.
        type: Its Arrow type.
        rows: Rows seen.
        nulls: Rows without a value.
        low: Smallest number or element; None where there is none.
        high: Largest.
        values: The different texts or numbers, as long as they are few; None: many.
        lengths: The different lengths of lists.
        characters: Characters of all texts.
    """

    name: str
    type: pa.DataType
    rows: int = 0
    nulls: int = 0
    low: float | None = None
    high: float | None = None
    values: set[Any] | None = field(default_factory=set)
    lengths: set[int] = field(default_factory=set)
    characters: int = 0

    def see(self, column: pa.ChunkedArray) -> None:
        """Take in some rows."""
        self.rows += len(column)
        self.nulls += column.null_count
        present = column.drop_null()
        if not len(present):
            return
        if is_list(self.type):
            self.lengths |= set(pc.unique(pc.list_value_length(present)).to_pylist())
            self.values = None
            present = pc.list_flatten(present)
        elif is_text(self.type):
            self.characters += int(pc.sum(pc.utf8_length(present)).as_py() or 0)
        if self.values is not None:
            self.values |= set(pc.unique(present).to_pylist())
            if len(self.values) > MOST_VALUES:
                self.values = None
        if is_number(present.type):
            ends = pc.min_max(present.cast(pa.float64(), safe=False)).as_py()
            if ends["min"] is not None:
                self.low = ends["min"] if self.low is None else min(self.low, ends["min"])
                self.high = ends["max"] if self.high is None else max(self.high, ends["max"])

    @property
    def mean_length(self) -> float:
        """Characters of a text, on average."""
        return self.characters / max(self.rows - self.nulls, 1)


@dataclass(frozen=True)
class Profile:
    """A file.

    Attributes:
        columns: By name, in the file's order.
        rows: Rows of the file.
        days: Rows per day (UTC) of the time column, in order.
        sample: Rows spread over the file.
    """

    columns: dict[str, ColumnProfile]
    rows: int
    days: dict[datetime, int]
    sample: pa.Table


def _dataset(path: str) -> pad.Dataset:
    from fsspec.core import url_to_fs

    if is_delta(path):
        return delta_table(path)
    files, place = url_to_fs(path)
    kind = "csv" if Path(place).suffix in (".csv", ".gz") else "parquet"
    return pad.dataset(place, filesystem=files, format=kind)


def profile_of(path: str, time: str, timezone: str = "UTC") -> Profile:
    """Read a Parquet or CSV file, or a Delta table, once.

    Args:
        path: Path or fsspec URL.
        time: Column of the time of each row.
        timezone: Zone of times that are written without one.

    Raises:
        DataError: The file cannot be read, or the column is not there or holds no times.
        SettingsError: It is a Delta table, whose reader is not installed.
    """
    try:
        dataset = _dataset(path)
        names = dataset.schema.names
        if time not in names:
            raise DataError(
                f"{path} has no column '{time}'. {nearest(time, names)}",
                remedy="Name the column that says when each row's prediction is asked for.",
            )
        columns = {f.name: ColumnProfile(f.name, f.type) for f in dataset.schema}
        days: dict[datetime, int] = {}
        rows = dataset.count_rows()
        step = max(rows // SAMPLE_ROWS, 1)
        parts: list[pa.Table] = []
        done = 0
        for batch in dataset.to_batches(batch_size=BATCH_ROWS, batch_readahead=2):
            table = pa.table(batch)
            for name, column in columns.items():
                column.see(table[name])
            for day, count in _days(table[time], time, timezone):
                days[day] = days.get(day, 0) + count
            places = np.arange(-done % step, table.num_rows, step)
            parts.append(table.take(pa.array(places)))
            done += table.num_rows
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read: {error}",
            remedy="Give a Parquet or CSV file by a path or an fsspec URL, or a Delta table.",
        ) from error
    if not rows:
        raise DataError(f"{path} has no rows.", remedy="Give a file with rows.")
    return Profile(columns, rows, dict(sorted(days.items())), pa.concat_tables(parts))


def _days(column: pa.ChunkedArray, name: str, timezone: str) -> Iterator[tuple[datetime, int]]:
    try:
        counted = pc.value_counts(pc.floor_temporal(as_instants(column, timezone), unit="day"))
    except pa.ArrowException as error:
        raise DataError(
            f"The column '{name}' is of type {column.type} and holds no times: {error}",
            remedy="Name a column of timestamps, dates, or ISO 8601 texts.",
        ) from error
    for entry in counted.to_pylist():
        if entry["values"] is not None:
            yield entry["values"], entry["counts"]


def is_number(kind: pa.DataType) -> bool:
    """Whether a column holds numbers."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )
