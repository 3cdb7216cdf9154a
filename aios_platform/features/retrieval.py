"""Attaching the features of several sources to entity rows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pad

from aios_platform.errors import FeatureError
from aios_platform.features.asof import AsOfJoin, FeatureRows, Integers
from aios_platform.features.sources import PER_SECOND, FeatureFiles, bound, instants, row_width

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
LEAST_BATCH_ROWS = 10_000


@dataclass(frozen=True)
class FeatureJoin:
    """One feature view to join.

    Args:
        view: Its name, for messages.
        files: Where its rows are.
        keys: Column of the source → column of the entity rows, per join key.
        event: Column of the event time.
        created: Column that says when a row became known, if there is one.
        ttl: Greatest age of a row, inclusive.
        features: Output name → column of the source.
    """

    view: str
    files: FeatureFiles
    keys: Mapping[str, str]
    event: str
    created: str | None
    ttl: timedelta | None
    features: Mapping[str, str]

    @property
    def times(self) -> list[str]:
        """The time columns of the source."""
        return [self.event, self.created] if self.created else [self.event]


def attach(
    entities: pa.Table,
    time: str,
    joins: list[FeatureJoin],
    *,
    honour_created: bool,
    since: datetime | None,
    budget: int,
) -> pa.Table:
    """Entity rows with the features as of their times, rows and order unchanged.

    Args:
        entities: The entity rows.
        time: Their time column.
        joins: What to attach.
        honour_created: Whether a row is hidden until it was created.
        since: Older events are not seen.
        budget: Bytes of feature rows to hold at once, about.

    Raises:
        FeatureError: A key cannot be compared with the source's.
        ArtifactCorrupt: A source is damaged.
    """
    for join in joins:
        for name, column in _one(entities, time, join, honour_created, since, budget).items():
            entities = entities.append_column(name, column)
    return entities


def _one(
    entities: pa.Table,
    time: str,
    join: FeatureJoin,
    honour_created: bool,
    since: datetime | None,
    budget: int,
) -> dict[str, pa.ChunkedArray]:
    schema = join.files.schema
    unit = _unit([entities.schema.field(time).type, *(schema.field(t).type for t in join.times)])
    moments = instants(entities[time], unit, time)
    lookup = AsOfJoin(
        keys=[_key(entities[e], schema.field(s).type, e, join) for s, e in join.keys.items()],
        moments=moments,
        ttl=_count(join.ttl, unit) if join.ttl else None,
        honour_created=honour_created,
    )
    files = join.files.pruned(_condition(moments, unit, join, since), encoded=list(join.keys))
    payload = list(dict.fromkeys(join.features.values()))
    needed = list(dict.fromkeys([*join.keys, *join.times, *payload]))
    rows = files.rows()
    step = max(budget // max(row_width(schema, needed), 1), LEAST_BATCH_ROWS)
    earliest = _count(since - EPOCH, unit) if since else None
    if rows <= step:
        table = files.table(needed)
        lookup.feed(_feature_rows(table, join, unit, earliest, first=0))
        indices = pa.array(lookup.winners, mask=lookup.winners < 0)
        return {name: table[column].take(indices) for name, column in join.features.items()}
    first = 0
    step = max(budget // max(row_width(schema, [*join.keys, *join.times]), 1), LEAST_BATCH_ROWS)
    for table in files.batches([*join.keys, *join.times], step):
        lookup.feed(_feature_rows(table, join, unit, earliest, first))
        first += table.num_rows
    step = max(budget // max(row_width(schema, payload), 1), LEAST_BATCH_ROWS)
    return _gather(files.batches(payload, step), lookup.winners, join)


def _feature_rows(
    table: pa.Table, join: FeatureJoin, unit: str, earliest: int | None, first: int
) -> FeatureRows:
    event = instants(table[join.event], unit, join.event)
    if earliest is not None:
        event = pc.if_else(pc.greater_equal(event, earliest), event, pa.scalar(None, pa.int64()))
    return FeatureRows(
        keys=[_comparable(table[key]) for key in join.keys],
        event=event,
        created=instants(table[join.created], unit, join.created) if join.created else None,
        first=first,
    )


def _gather(
    tables: Iterator[pa.Table], winners: Integers, join: FeatureJoin
) -> dict[str, pa.ChunkedArray]:
    """The winners' features, null where there is none; each source row is touched once."""
    order = np.argsort(winners, kind="stable")
    ranked = winners[order]
    place = np.full(len(winners), -1, dtype=np.int64)
    parts, first, filled = [], 0, 0
    for table in tables:
        start, stop = np.searchsorted(ranked, [first, first + table.num_rows])
        if stop > start:
            parts.append(table.take(pa.array(ranked[start:stop] - first)))
            place[order[start:stop]] = np.arange(filled, filled + stop - start)
            filled += stop - start
        empty = table.slice(0, 0)
        first += table.num_rows
    if not parts:
        parts = [empty if first else join.files.table(list(join.features.values())).slice(0, 0)]
    found = pa.concat_tables(parts)
    indices = pa.array(place, mask=place < 0)
    return {name: found[column].take(indices) for name, column in join.features.items()}


def _condition(
    moments: pa.ChunkedArray | pa.Array, unit: str, join: FeatureJoin, since: datetime | None
) -> pad.Expression | None:
    """What a row group's statistics must allow for any of its rows to be seen."""
    ends = pc.min_max(moments)
    if not ends["min"].is_valid:
        return None
    kind = join.files.schema.field(join.event).type
    scale = PER_SECOND[unit] // PER_SECOND["us"]
    try:
        oldest = EPOCH + (ends["min"].as_py() // scale) * MICROSECOND
        youngest = EPOCH + (ends["max"].as_py() // scale + 1) * MICROSECOND
        condition = pad.field(join.event) <= bound(youngest, kind)
        reaches = [since] if since else []
        reaches += [oldest - join.ttl] if join.ttl else []
        if reaches:
            first = bound(max(reaches) - MICROSECOND, kind)
            condition = condition & (pad.field(join.event) >= first)
    except OverflowError:
        return None
    return condition


def _unit(kinds: list[pa.DataType]) -> str:
    fine = any(pa.types.is_timestamp(kind) and kind.unit == "ns" for kind in kinds)
    return "ns" if fine else "us"


def _count(span: timedelta, unit: str) -> int:
    return (span // MICROSECOND) * (PER_SECOND[unit] // PER_SECOND["us"])


def _key(
    values: pa.ChunkedArray, kind: pa.DataType, name: str, join: FeatureJoin
) -> pa.ChunkedArray:
    """An entity key in the type of the source's, so that equal values compare equal."""
    wanted = _plain_type(kind)
    values = _decoded(values)
    if values.type == wanted:
        return values
    alike = (
        (_is_text(values.type) and _is_text(wanted))
        or (pa.types.is_integer(wanted) and _is_number(values.type))
        or (pa.types.is_floating(wanted) and _is_number(values.type))
        or values.null_count == len(values)
    )
    try:
        if alike:
            return values.cast(wanted)
    except pa.ArrowInvalid:
        pass
    raise FeatureError(
        f"The entity key '{name}' is of type {values.type}, the key of '{join.view}' of {wanted}; "
        "they cannot be compared.",
        remedy="Convert the entity rows' column to the source's type.",
    )


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    wanted = _plain_type(values.type)
    return values if values.type == wanted else values.cast(wanted)


def _comparable(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """A source's key: dictionaries are left as they are read, other values get their plain type."""
    return values if pa.types.is_dictionary(values.type) else _decoded(values)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind):
        return pa.large_string()
    return pa.int64() if pa.types.is_signed_integer(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
