"""Equal content has one form and one digest; different content has another."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.declaration import Table
from aios_platform.data.canonical import canonical, content_digest, schema_faults

DECLARED = Table.model_validate(
    {
        "row_id": ["id"],
        "columns": {
            "id": {"type": "string"},
            "n": {"type": "int", "nullable": True},
            "x": {"type": "float", "nullable": True},
            "b": {"type": "bool", "nullable": True},
            "t": {"type": "timestamp", "nullable": True},
        },
    }
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("n", pa.int64()),
        ("x", pa.float64()),
        ("b", pa.bool_()),
        ("t", pa.timestamp("us", "UTC")),
    ]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=4),
            "n": st.none() | st.integers(-(2**63), 2**63 - 1),
            "x": st.none() | st.floats(allow_nan=False),
            "b": st.none() | st.booleans(),
            "t": st.none() | st.integers(0, 2**50),
        }
    ),
    max_size=12,
)


def table(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def digest(rows: pa.Table) -> str:
    return content_digest(canonical(rows, DECLARED))


@settings(max_examples=40, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_order_of_rows_and_columns_and_chunks_do_not_count(rows, random, chunk) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    names = list(SCHEMA.names)
    random.shuffle(names)
    parts = [table(shuffled[i : i + chunk]) for i in range(0, len(shuffled), chunk)]
    other = pa.concat_tables(parts or [table([])]).select(names)
    assert digest(other) == digest(table(rows))
    assert canonical(other, DECLARED).equals(canonical(table(rows), DECLARED))


@settings(max_examples=40, deadline=None)
@given(ROWS.filter(bool), st.data())
def test_any_changed_value_counts(rows, data) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from(SCHEMA.names))
    old = rows[place][name]
    new = {"id": "zzzzz", "n": 0, "x": 0.5, "b": True, "t": 1}[name] if old is None else None
    if name == "id" or old == new:
        new = "zzzzz" if name == "id" else None
    changed = [dict(row) for row in rows]
    changed[place][name] = new
    assert digest(table(changed)) != digest(table(rows))


def test_values_under_nulls_do_not_count() -> None:
    mask = np.array([False, True])
    one = pa.array(np.array([1, 2]), mask=mask)
    other = pa.array(np.array([1, 99]), mask=mask)
    rows = table([{"id": "a"}, {"id": "b"}])
    assert digest(rows.set_column(1, "n", one)) == digest(rows.set_column(1, "n", other))


def test_text_is_not_confused_across_rows() -> None:
    assert digest(table([{"id": "ab"}, {"id": "c"}])) != digest(table([{"id": "a"}, {"id": "bc"}]))


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        ("id", pa.large_string()),
        ("id", pa.dictionary(pa.int32(), pa.string())),
        ("n", pa.int8()),
        ("n", pa.uint64()),
        ("x", pa.float32()),
        ("t", pa.timestamp("ns", "UTC")),
        ("t", pa.timestamp("s", "America/New_York")),
        ("b", pa.null()),
    ],
)
def test_types_that_hold_the_same_values_are_accepted(column: str, kind: pa.DataType) -> None:
    rows = table([{"id": "a", "n": 5, "x": 0.5, "t": 1_000_000}, {"id": "b", "n": 6}])
    place = SCHEMA.names.index(column)
    cells = pa.array(rows[column].to_pylist(), rows[column].type)
    other = rows.set_column(
        place, column, pa.nulls(2) if pa.types.is_null(kind) else cells.cast(kind)
    )
    assert schema_faults(other.schema, DECLARED) == {}
    assert digest(other) == digest(rows)


def test_every_fault_of_a_schema_is_named() -> None:
    rows = table([]).drop_columns(["x"]).append_column("y", pa.array([], pa.float64()))
    rows = rows.append_column("b", pa.array([], pa.bool_()))
    rows = rows.set_column(1, "n", pa.array([], pa.string()))
    assert schema_faults(rows.schema, DECLARED) == {
        "x": "the column 'x' is missing. Valid: y.",
        "y": "the column 'y' is not declared.",
        "b": "the column 'b' is delivered 2 times.",
        "n": "the column 'n' has type string; expected int.",
    }
