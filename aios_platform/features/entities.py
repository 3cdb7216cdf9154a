"""Entity rows: the rows that features are attached to."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.contracts.record import nearest
from aios_platform.errors import FeatureError
from aios_platform.features.retrieval import FeatureJoin
from aios_platform.features.sources import instants

TIME = "event_timestamp"
SNAPSHOT_DAYS = 30


def as_table(rows: Any) -> pa.Table:
    """Entity rows as an Arrow table.

    Raises:
        FeatureError: They are neither an Arrow table nor a pandas frame, or a column mixes types.
    """
    if isinstance(rows, pa.Table):
        return rows
    if hasattr(rows, "to_arrow"):
        return rows.to_arrow()
    if not hasattr(rows, "iloc"):
        raise FeatureError(
            f"Entity rows of type {type(rows).__name__} cannot be joined.",
            remedy="Give a pandas frame or an Arrow table.",
        )
    try:
        return pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise FeatureError(
            f"The entity rows cannot be read: {error}.", remedy="Give each column one type."
        ) from error


def time_column(entities: pa.Table) -> str:
    """The column with the entity rows' time: `event_timestamp`, else the only timestamp.

    Raises:
        FeatureError: There is none, or there are several to choose from.
    """
    if TIME in entities.column_names:
        return TIME
    times: list[str] = [f.name for f in entities.schema if pa.types.is_timestamp(f.type)]
    if len(times) != 1:
        raise FeatureError(
            f"The entity rows have no column '{TIME}' and {len(times)} other timestamps.",
            remedy=f"Name the time of the entity rows '{TIME}'.",
        )
    return times[0]


def check(entities: pa.Table, time: str, joins: Sequence[FeatureJoin]) -> None:
    """Make sure that every join finds its columns, and that no output column is named twice.

    Raises:
        FeatureError: A join key is missing, a feature has the name of another column, or a
            source lacks a column.
    """
    names = entities.column_names
    instants(entities[time].slice(0, 0), "us", time)
    seen = dict.fromkeys(names, "the entity rows")
    for join in joins:
        for key in join.keys.values():
            if key not in names:
                raise FeatureError(
                    f"The entity rows have no column '{key}', the key of '{join.view}'. "
                    f"{nearest(key, names)}",
                    remedy="Add the column to the entity rows.",
                )
        for name in join.features:
            if name in seen:
                raise FeatureError(
                    f"The feature '{name}' of '{join.view}' has the name of a column of "
                    f"{seen[name]}.",
                    remedy="Ask for full_feature_names, or rename one of them.",
                )
            seen[name] = f"'{join.view}'"
        join.files.require([*join.keys, *join.times, *join.features.values()])


def span(entities: pa.Table, time: str) -> tuple[datetime | None, datetime | None]:
    """Oldest and youngest time of the entity rows (naive times are taken for UTC)."""
    ends = pc.min_max(entities[time])
    found = []
    for end in (ends["min"], ends["max"]):
        value = end.cast(pa.timestamp("us"), safe=False).as_py() if end.is_valid else None
        found.append(value.replace(tzinfo=UTC) if value else None)
    return found[0], found[1]


def snapshot(
    joins: Sequence[FeatureJoin],
    feature_views: Sequence[Any],
    start: datetime | None,
    end: datetime | None,
) -> tuple[pa.Table, datetime]:
    """One entity row per key that occurs in the sources, all at `end`.

    Args:
        joins: The joins; all need the same keys.
        feature_views: Their Feast views, for the default of `start`: the longest TTL before
            `end`, or 30 days where no view has one.
        start: Events before are not seen.
        end: Time of the entity rows; default now.

    Returns:
        The entity rows, and since when events count.

    Raises:
        FeatureError: The joins have different keys.
    """
    end = _aware(end) if end else datetime.now(UTC)
    ages = [view.ttl for view in feature_views if view.ttl]
    since = _aware(start) if start else end - max(ages, default=timedelta(days=SNAPSHOT_DAYS))
    keys = [sorted(join.keys.values()) for join in joins]
    if any(key != keys[0] for key in keys):
        raise FeatureError(
            f"Without entity rows all views need the same keys; they have {keys}.",
            remedy="Give entity rows, or retrieve the views one by one.",
        )
    parts = []
    for join in joins:
        table = join.files.table(list(join.keys)).rename_columns(list(join.keys.values()))
        parts.append(table.select(keys[0]).group_by(keys[0]).aggregate([]))
    if keys[0]:
        rows = pa.concat_tables(parts, promote_options="permissive")
        rows = rows.group_by(keys[0]).aggregate([]).drop_null()
        rows = rows.sort_by([(key, "ascending") for key in keys[0]])
    else:
        rows = pa.table({"": [0]}).select([])
    count = rows.num_rows if keys[0] else 1
    moments = pa.array([end] * count, pa.timestamp("us", tz="UTC"))
    if not keys[0]:
        return pa.table({TIME: moments}), since
    return rows.append_column(TIME, moments), since


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
