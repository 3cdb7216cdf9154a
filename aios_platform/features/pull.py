"""Rows of a source that became visible in a time range, for materialization."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.dataset as pad

from aios_platform.errors import FeatureError
from aios_platform.features.asof import newest_rows
from aios_platform.features.retrieval import LEAST_BATCH_ROWS
from aios_platform.features.sources import FeatureFiles, bound, instants, row_width


def within(
    files: FeatureFiles,
    columns: list[str],
    event: str,
    created: str | None,
    start: datetime | None,
    end: datetime | None,
    *,
    honour_created: bool,
    budget: int,
) -> Callable[[], Iterator[pa.Table]]:
    """A way to read, batch by batch, the rows that became visible in `[start, end]`.

    Args:
        files: The source.
        columns: Columns to return.
        event: Column of the event time.
        created: Column that says when a row became known, if there is one.
        start: First moment, None: from the beginning.
        end: Last moment, None: to the end.
        honour_created: Whether a row becomes visible only when created.
        budget: Bytes to hold at once, about.

    Raises:
        FeatureError: The source lacks a column.
    """
    columns = list(dict.fromkeys(columns))
    files.require(columns)
    start, end = _aware(start), _aware(end)
    times = [event, created] if honour_created and created else [event]
    kinds = {name: files.schema.field(name).type for name in times}
    for name, kind in kinds.items():
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            raise FeatureError(
                f"The column '{name}' of '{files.label}' is of type {kind}; a time is needed.",
                remedy="Write it as a timestamp, best in UTC.",
            )
    condition = pad.scalar(True)
    for name in times:
        condition &= pad.field(name).is_valid()
        if end is not None:
            condition &= pad.field(name) <= bound(end, kinds[name])
    if start is not None:
        late = pad.scalar(False)
        for name in times:
            late |= pad.field(name) >= bound(start, kinds[name])
        condition &= late
    kept = files.pruned(condition)
    step = max(budget // max(row_width(files.schema, columns), 1), LEAST_BATCH_ROWS)

    def read() -> Iterator[pa.Table]:
        yield files.schema.empty_table().select(columns)
        for table in kept.batches(columns, step):
            yield table.filter(condition)

    return read


def newest(
    tables: Iterator[pa.Table], keys: list[str], event: str, created: str | None
) -> pa.Table:
    """The newest row per key by event time, created time and place in the source."""
    best: pa.Table | None = None
    for table in tables:
        both = table if best is None else pa.concat_tables([best, table])
        best = both.take(
            pa.array(
                newest_rows(
                    [both[key] for key in keys],
                    instants(both[event], "ns", event),
                    instants(both[created], "ns", created) if created else None,
                )
            )
        )
    assert best is not None
    return best


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo:
        return moment
    return moment.replace(tzinfo=UTC)
