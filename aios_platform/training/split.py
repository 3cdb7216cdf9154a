"""The labelled rows of a frame, parted by window, and read piece by piece.

A frame may be larger than memory allows for beside its encoded rows. Nothing here holds it whole:
columns are read a few at a time, rows some batches at a time, and only those of one side.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pad

from aios_platform.columns import is_text
from aios_platform.contracts.policy import Task
from aios_platform.errors import TrainingError
from aios_platform.metrics.truth import label_type

BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Side:
    """The labelled rows of some windows, in the order of the frame.

    Attributes:
        frame: Holds them among others.
        chosen: Which rows they are.
        rows: How many.
        windows: Keys of their windows, sorted.
    """

    frame: pad.Dataset
    chosen: pc.Expression
    rows: int
    windows: tuple[str, ...]

    @property
    def column_names(self) -> list[str]:
        """Columns of the frame."""
        names: list[str] = self.frame.schema.names
        return names

    def select(self, names: list[str]) -> pa.Table:
        """Some columns of all rows.

        Raises:
            TrainingError: The frame cannot be read.
        """
        try:
            return self.frame.to_table(columns=names, filter=self.chosen)
        except OSError as error:
            raise _unreadable(error) from error

    def first(self, names: list[str], rows: int) -> pa.Table:
        """Some columns of the first rows.

        Raises:
            TrainingError: The frame cannot be read.
        """
        try:
            return self.frame.head(rows, columns=names, filter=self.chosen)
        except OSError as error:
            raise _unreadable(error) from error

    def batches(self, names: list[str]) -> Iterator[pa.Table]:
        """Some columns, in tables of bounded size.

        Raises:
            TrainingError: The frame cannot be read.
        """
        batches = self.frame.to_batches(
            columns=names,
            filter=self.chosen,
            batch_size=BATCH_ROWS,
            batch_readahead=2,
            fragment_readahead=1,
        )
        try:
            for batch in batches:
                yield pa.Table.from_batches([batch])
        except OSError as error:
            raise _unreadable(error) from error


@dataclass(frozen=True)
class Split:
    """Labelled rows, parted by window.

    Attributes:
        train: Rows of the training windows.
        validation: Rows of the last windows, held out.
    """

    train: Side
    validation: Side


def split_windows(
    frame: pa.Table | pad.Dataset,
    label: str,
    window_column: str,
    held_out: int,
    task: Task = "binary_classification",
) -> Split:
    """Part the labelled rows into training windows and the last `held_out` ones.

    Raises:
        TrainingError: A column is missing, or a side has no rows or only one label.
    """
    dataset = pad.dataset(frame) if isinstance(frame, pa.Table) else frame
    for column in (label, window_column):
        if column not in dataset.schema.names:
            raise TrainingError(
                f"The training frame lacks the column '{column}'.",
                remedy="Materialize the training set again.",
            )
    kind, expected = dataset.schema.field(label).type, label_type(task)
    if not _fits(kind, expected):
        raise TrainingError(
            f"The label '{label}' is of type {kind}; expected {expected}.",
            remedy="Correct the label's column in the source.",
        )
    counts = _counts(dataset, label, window_column)
    windows = sorted(counts)
    if len(windows) <= held_out:
        raise TrainingError(
            f"The training frame has labels in {len(windows)} windows {windows}; "
            f"{held_out} are held out, none is left to train on.",
            remedy="Wait for more matured windows, or lower training.validation_windows.",
        )
    sides = []
    for name, keys in (("training", windows[:-held_out]), ("validation", windows[-held_out:])):
        rows = sum(counts[key].rows for key in keys)
        low = min(counts[key].low for key in keys)
        high = max(counts[key].high for key in keys)
        if low == high:
            lacking = "both classes are" if expected == pa.bool_() else "two different ones are"
            raise TrainingError(
                f"The {name} windows {keys} have {rows:,} labels, all of them {low}; "
                f"{lacking} needed.",
                remedy="Train on more windows.",
            )
        kind = dataset.schema.field(window_column).type
        chosen = pc.field(label).is_valid() & pc.field(window_column).isin(
            pa.array(keys, pa.string()).cast(kind)
        )
        sides.append(Side(dataset, chosen, rows, tuple(keys)))
    return Split(*sides)


class _Labels(NamedTuple):
    """How many labels a window has, and their extremes."""

    rows: int
    low: Any
    high: Any


def _fits(kind: pa.DataType, expected: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if expected == pa.float64():
        return bool(pa.types.is_floating(plain) or pa.types.is_integer(plain))
    if expected == pa.string():
        return is_text(plain)
    return bool(plain == expected)


def _counts(dataset: pad.Dataset, label: str, window_column: str) -> dict[str, _Labels]:
    """Labels per window that has any."""
    try:
        table = dataset.to_table(columns=[window_column, label], filter=pc.field(label).is_valid())
    except OSError as error:
        raise _unreadable(error) from error
    if pa.types.is_dictionary(table.schema.field(label).type):
        table = table.set_column(1, label, table[label].cast(pa.string()))
    grouped = table.group_by(window_column).aggregate([(label, a) for a in ("count", "min", "max")])
    return {
        str(row[window_column]): _Labels(*(row[f"{label}_{a}"] for a in ("count", "min", "max")))
        for row in grouped.to_pylist()
    }


def _unreadable(error: OSError) -> TrainingError:
    return TrainingError(
        f"The training frame cannot be read: {error}",
        remedy="Restore its files, or materialize the training set again.",
    )
