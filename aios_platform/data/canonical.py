"""One form for equal content: declared types, declared column order, one row order, one digest.

Two deliveries with the same rows give the same canonical table, whatever the order of their rows
and columns, the width of their integers or the library that made them.
"""

import hashlib

import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.columns import is_list
from aios_platform.contracts.declaration import ColumnType, Table
from aios_platform.contracts.record import nearest

ARROW_TYPES = {
    ColumnType.STRING: pa.string(),
    ColumnType.INT: pa.int64(),
    ColumnType.FLOAT: pa.float64(),
    ColumnType.BOOL: pa.bool_(),
    ColumnType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    # Of any length, so that a row of another length than declared is found, and not the window.
    ColumnType.VECTOR: pa.list_(pa.float32()),
    ColumnType.TEXT: pa.string(),
}


def arrow_schema(declared: Table) -> pa.Schema:
    """The Arrow schema of a declared table."""
    return pa.schema([(name, ARROW_TYPES[c.type]) for name, c in declared.columns.items()])


def schema_faults(delivered: pa.Schema, declared: Table) -> dict[str, str]:
    """What is wrong with a delivered schema: a sentence per column, by column name."""
    faults: dict[str, str] = {}
    names = delivered.names
    for name in declared.columns:
        if name not in names:
            extra = [n for n in names if n not in declared.columns]
            hint = f" {nearest(name, extra)}" if extra else ""
            faults[name] = f"the column '{name}' is missing.{hint}"
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            faults[name] = f"the column '{name}' is delivered {names.count(name)} times."
        elif name not in declared.columns:
            faults[name] = f"the column '{name}' is not declared."
        elif not _fits(delivered.field(name).type, declared.columns[name].type):
            expected = declared.columns[name].type
            note = " in UTC" if expected is ColumnType.TIMESTAMP else ""
            faults[name] = (
                f"the column '{name}' has type {delivered.field(name).type}; "
                f"expected {expected}{note}."
            )
    return faults


def _fits(found: pa.DataType, expected: ColumnType) -> bool:
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    match expected:
        case ColumnType.STRING | ColumnType.TEXT:
            return bool(
                pa.types.is_string(found)
                or pa.types.is_large_string(found)
                or pa.types.is_string_view(found)
            )
        case ColumnType.INT:
            return bool(pa.types.is_integer(found))
        case ColumnType.FLOAT:
            return bool(pa.types.is_floating(found))
        case ColumnType.BOOL:
            return bool(pa.types.is_boolean(found))
        case ColumnType.TIMESTAMP:
            # Without a zone nobody knows which instant is meant.
            return bool(pa.types.is_timestamp(found) and found.tz is not None)
        case ColumnType.VECTOR:
            return bool(is_list(found) and pa.types.is_floating(found.value_type))


def canonical(table: pa.Table, declared: Table) -> pa.Table:
    """Bring a table whose schema has no faults into the declared types and order.

    Rows are ordered by row id; rows that share an id, or a table without one, by all columns but
    vectors.

    Args:
        table: What was delivered.
        declared: Its declaration.

    Raises:
        pyarrow.ArrowInvalid: A value does not fit into the declared type (an integer of more
            than 64 bits, say).
    """
    columns = []
    for field in arrow_schema(declared):
        column = table[field.name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        # Instants finer than a microsecond and elements finer than float32 are cut; everything
        # else must survive the cast.
        safe = not (pa.types.is_timestamp(field.type) or is_list(field.type))
        columns.append(column.cast(field.type, safe=safe).combine_chunks())
    cast = pa.table(columns, schema=arrow_schema(declared))
    keys = list(declared.row_id)
    if keys and cast.group_by(keys).aggregate([]).num_rows == cast.num_rows:
        return _sorted(cast, keys)
    others = [n for n in cast.column_names if n not in keys and not is_list(cast[n].type)]
    return _sorted(cast, [*keys, *others])


def _sorted(table: pa.Table, keys: list[str]) -> pa.Table:
    order = pc.sort_indices(table, sort_keys=[(key, "ascending") for key in keys])
    return table.take(order).combine_chunks()


def content_digest(table: pa.Table) -> str:
    """SHA-256 (hex) of the values of a canonical table, independent of library and file format.

    Null slots and chunk boundaries do not count; names, types, order and values do.
    """
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.columns, strict=True):
        digest.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
        valid = column.is_valid().combine_chunks().cast(pa.uint8())
        digest.update(_bytes(valid))
        kind = column.type
        if pa.types.is_string(kind):
            filled = pc.fill_null(column, "").combine_chunks()
            digest.update(_bytes(pc.binary_length(filled)))
            digest.update("".join(filled.to_pylist()).encode())
        elif is_list(kind):
            digest.update(_bytes(pc.fill_null(pc.list_value_length(column), 0).combine_chunks()))
            elements = pc.list_flatten(column).combine_chunks()
            digest.update(_bytes(elements.is_valid().cast(pa.uint8())))
            digest.update(_bytes(pc.fill_null(elements, 0)))
        elif pa.types.is_boolean(kind):
            digest.update(_bytes(pc.fill_null(column, False).combine_chunks().cast(pa.uint8())))
        elif pa.types.is_timestamp(kind):
            digest.update(_bytes(pc.fill_null(column.cast(pa.int64()), 0).combine_chunks()))
        else:
            digest.update(_bytes(pc.fill_null(column, 0).combine_chunks()))
    return digest.hexdigest()


def _bytes(column: pa.Array | pa.ChunkedArray) -> bytes:
    array = pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column
    raw: bytes = array.to_numpy(zero_copy_only=False).tobytes()
    return raw
