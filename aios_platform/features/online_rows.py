"""Rows for the online store's table, as lines of COPY's text format.

psycopg's own rows cost several times as much, and so do Feast's: it makes a message of every value.
From a table each *distinct* value of a column is converted once, by Feast's own functions.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast import ValueType  # noqa: TID253
from feast.infra.key_encoding_utils import (  # noqa: TID253
    serialize_entity_key,
    serialize_entity_key_prefix,
)
from feast.infra.online_stores.helpers import extract_text_and_num  # noqa: TID253
from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # noqa: TID253
from feast.protos.feast.types.Value_pb2 import Value  # noqa: TID253
from feast.type_map import python_values_to_proto_values  # noqa: TID253

from aios_platform.known import INSTANT

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
COLUMNS = ("entity_key", "feature_name", "value", "value_text", "event_ts", "created_ts")
# https://www.postgresql.org/docs/current/sql-copy.html
NULL = "\\N"
ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def lines_of_rows(data: Sequence[Row], version: int) -> Iterator[str]:
    """A line per value of Feast's own rows: the columns of `COLUMNS`, then the value's place.

    Args:
        data: Feast's rows.
        version: Of the serialization of entity keys.
    """
    place = 0
    for entity_key, values, event, created in data:
        key = serialize_entity_key(entity_key, entity_key_serialization_version=version)
        times = f"{_utc(event)}\t{_utc(created) or NULL}"
        for name, value in values.items():
            yield f"\\\\x{key.hex()}\t{_escaped(name)}\t{_shown(value)}\t{times}\t{place}\n"
            place += 1


def lines_of_table(
    table: pa.Table,
    keys: Mapping[str, ValueType],
    features: Mapping[str, ValueType],
    event: str,
    created: str | None,
    version: int,
) -> Iterator[str]:
    """The same lines from a table; a null and a NaN are a null value, as Feast has it.

    Args:
        table: One row per entity, none of whose keys is null.
        keys: Types of the join keys by their columns.
        features: Types of the features by their columns.
        event: Column of the event time.
        created: Column that says when a row became known, if there is one.
        version: Of the serialization of entity keys.
    """
    entities = _entity_keys(table, keys, version)
    times = [
        f"{at}\t{known or NULL}"
        for at, known in zip(
            _instants(table[event]),
            _instants(table[created]) if created else [None] * table.num_rows,
            strict=True,
        )
    ]
    columns = [
        (f"\t{_escaped(name)}\t", *_distinct(table[name], kind)) for name, kind in features.items()
    ]
    place = 0
    for row, (entity, moments) in enumerate(zip(entities, times, strict=True)):
        for name, shown, places in columns:
            yield f"\\\\x{entity}{name}{shown[places[row]]}\t{moments}\t{place}\n"
            place += 1


def _entity_keys(table: pa.Table, keys: Mapping[str, ValueType], version: int) -> list[str]:
    """Serialized entity keys in hex, one per row: the names in order, then the values."""
    start = serialize_entity_key_prefix(list(keys), version).hex()
    parts = []
    for name in sorted(keys):
        length = len(serialize_entity_key_prefix([name], version))
        values, places = _messages(table[name], keys[name])
        each = [
            serialize_entity_key(EntityKey(join_keys=[name], entity_values=[value]), version)
            for value in values
        ]
        hexed = [key[length:].hex() for key in each]
        parts.append([hexed[place] for place in places])
    return [start + "".join(row) for row in zip(*parts, strict=True)]


def _distinct(column: pa.ChunkedArray, kind: ValueType) -> tuple[list[str], list[int]]:
    """The distinct values of a column as they are written, and which of them each row has."""
    values, places = _messages(column, kind)
    return [_shown(value) for value in (*values, Value())], places


def _messages(column: pa.ChunkedArray, kind: ValueType) -> tuple[list[Value], list[int]]:
    """Feast's messages of the distinct values; -1 is the place of a null, the last."""
    if pa.types.is_nested(column.type):
        values = python_values_to_proto_values(column.to_numpy(zero_copy_only=False), kind)
        return values, list(range(len(values)))
    coded = column.combine_chunks().dictionary_encode()
    # What Feast asks of each value is answered many times faster by Python's own numbers.
    plain = pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
    found = coded.dictionary
    distinct: Any = found.to_pylist() if plain else found.to_numpy(zero_copy_only=False)
    values = python_values_to_proto_values(distinct, kind) if len(distinct) else []
    return values, pc.fill_null(coded.indices, -1).to_pylist()


def _shown(value: Value) -> str:
    text, _ = extract_text_and_num(value, False)
    return f"\\\\x{value.SerializeToString().hex()}\t{NULL if text is None else _escaped(text)}"


def _instants(column: pa.ChunkedArray) -> list[str | None]:
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("us"))
    utc = column if column.type.tz else pc.assume_timezone(column, "UTC")
    return list(utc.cast(INSTANT, safe=False).cast(pa.string()).to_pylist())


def _escaped(text: str) -> str:
    return text.translate(ESCAPED)


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
