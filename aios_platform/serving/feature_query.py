"""The statement that reads all views of a model at once.

A cell is one feature of one entity: its column, the place of its key, its event, its value.
Numbers come as records of one length; the rest comes with its length. All cells come as one value,
since a row per cell costs the client fifteen times the processor time.
"""

from collections.abc import Mapping, Sequence

from psycopg import sql

# A tag byte and ten bytes, the longest number in protobuf.
VALUE_BYTES = 11


def statement(numbers: Sequence[sql.Composed], objects: Sequence[sql.Composed]) -> sql.Composed:
    """All cells that are numbers, and all others: two columns of one row, `bytea` or null."""
    return sql.SQL("SELECT {}, {}").format(_all(numbers), _all(objects))


def cells_of(
    parameter: int, table: str, columns: Mapping[str, int], *, is_number: bool
) -> sql.Composed:
    """Select the cells of one view.

    The subquery with OFFSET is not merged with the keys, so each key is one search of the index,
    whatever the planner believes about a table that was never analysed.

    Args:
        parameter: Number of the parameter with the keys.
        table: The view's table.
        columns: Per feature: the number by which its cells are known.
        is_number: Whether the values are numbers.
    """
    value = (
        sql.SQL("substr(value || {}, 1, {})").format(bytes(VALUE_BYTES), VALUE_BYTES)
        if is_number
        else sql.SQL("int4send(length(value)) || value")
    )
    return sql.SQL(
        "SELECT cell FROM unnest({keys}::bytea[]) WITH ORDINALITY AS asked (key, place) "
        "CROSS JOIN LATERAL (SELECT CASE feature_name {cases} END || int4send(place::int4) || "
        "timestamptz_send(event_ts) || {value} AS cell "
        "FROM {table} WHERE entity_key = key AND feature_name IN ({names}) OFFSET 0) AS found"
    ).format(
        keys=sql.SQL(f"${parameter}"),
        cases=sql.SQL(" ").join(
            sql.SQL("WHEN {} THEN {}").format(name, number.to_bytes(2))
            for name, number in columns.items()
        ),
        value=value,
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(map(sql.Literal, columns)),
    )


def _all(parts: Sequence[sql.Composed]) -> sql.Composable:
    if not parts:
        return sql.SQL("NULL::bytea")
    return sql.SQL("(SELECT string_agg(cell, '') FROM ({}) AS cells)").format(
        sql.SQL(" UNION ALL ").join(parts)
    )
