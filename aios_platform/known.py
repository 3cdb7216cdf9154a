"""Raw tables as they were known at a moment."""

import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.declaration import Label, Table

INSTANT = pa.timestamp("us", tz="UTC")


def as_known(rows: pa.Table, declared: Table, moment: pa.Scalar, label: Label | None) -> pa.Table:
    """What was known of a raw table at a moment.

    A row that became known later is gone, a value that became known later is null; so is a value
    of which nobody says when it became known although its column has a clock.

    Args:
        rows: The raw table.
        declared: Its declaration, which names the clocks.
        moment: timestamp[us, UTC].
        label: The label, if this is the predicted table: it has a clock of its own.
    """
    clock = declared.known_at or declared.timestamp
    if clock is not None:
        rows = rows.filter(_by(rows[clock], moment))
    clocks = {name: column.known_at for name, column in declared.columns.items()}
    if label is not None:
        clocks[label.column] = clocks.get(label.column) or label.known_at
    known = {name: _by(rows[name], moment) for name in set(filter(None, clocks.values()))}
    for name, column_clock in clocks.items():
        if column_clock is not None and name in rows.column_names:
            values = rows[name]
            hidden = pc.if_else(known[column_clock], values, pa.scalar(None, values.type))
            rows = rows.set_column(rows.column_names.index(name), name, hidden)
    return rows


def anything_known_after(rows: pa.Table, declared: Table, moment: pa.Scalar) -> bool:
    """Whether any row or value of the table became known after a moment."""
    clocks = {declared.known_at or declared.timestamp}
    clocks |= {column.known_at for column in declared.columns.values()}
    for clock in filter(None, clocks):
        newest = pc.max(rows[clock])
        if newest.is_valid and newest.cast(INSTANT).as_py() > moment.as_py():
            return True
    return False


def _by(times: pa.ChunkedArray, moment: pa.Scalar) -> pa.ChunkedArray:
    return pc.fill_null(pc.less_equal(times.cast(INSTANT), moment), False)
