"""Every row ends in exactly one place, and a plain reading of the declaration agrees which."""

import math
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.data.canonical import arrow_schema, canonical
from aios_platform.data.quarantine import split
from aios_platform.data.rules import row_rules
from aios_platform.data.validation import figures
from tests.unit.data.conftest import DAY, SHOP

DECLARATION = ModelDeclaration.model_validate(SHOP)
DECLARED = DECLARATION.source.tables["orders"]
WINDOW = DECLARATION.windows.window("2024-03-01")
NOW = datetime(2024, 3, 5, tzinfo=UTC)

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "order_id": st.none() | st.sampled_from(["a", "b", "c", "d", "e'"]),
            "placed_at": st.none() | st.integers(-2, 26).map(lambda h: DAY + timedelta(hours=h)),
            "amount": st.none()
            | st.sampled_from([0.0, 1.5, 1000.0, 1000.5, -1.0, math.nan, math.inf, -math.inf]),
            "items": st.none() | st.integers(-1, 3),
            "channel": st.none() | st.sampled_from(["web", "shop's", "fax", ""]),
            "note": st.none() | st.text(max_size=2),
            "returned": st.none() | st.booleans(),
            "closed_at": st.none() | st.sampled_from([DAY, NOW, NOW + timedelta(seconds=1)]),
        }
    ),
    max_size=15,
)


def is_good(row: dict[str, object]) -> bool:
    """The declaration, read by a person."""
    placed, amount, items = row["placed_at"], row["amount"], row["items"]
    return (
        row["order_id"] is not None
        and placed is not None
        and WINDOW.start <= placed < WINDOW.end
        and amount is not None
        and math.isfinite(amount)
        and 0 <= amount <= 1000
        and items is not None
        and items >= 1
        and row["channel"] in ("web", "shop's")
        and (row["closed_at"] is None or row["closed_at"] <= NOW)
    )


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_rows_are_divided_as_declared_and_none_is_lost(rows) -> None:
    table = canonical(pa.Table.from_pylist(rows, schema=arrow_schema(DECLARED)), DECLARED)
    rules = row_rules(DECLARATION.source, "orders", WINDOW, NOW)
    parts = split(table, DECLARED, rules)
    delivered = table.to_pylist()
    good, bad = [], []
    for place, row in enumerate(delivered):
        same_id = [(i, r) for i, r in enumerate(delivered) if r["order_id"] == row["order_id"]]
        first = same_id[0][0] == place and all(repr(r) == repr(row) for _, r in same_id)
        (good if is_good(row) and first else bad).append(row)
    assert repr(parts.good.to_pylist()) == repr(good)
    assert repr(parts.bad.drop_columns(["quarantine_reason"]).to_pylist()) == repr(bad)
    assert all(parts.bad["quarantine_reason"].to_pylist())


@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_figures_count_what_quarantine_finds(rows) -> None:
    table = canonical(pa.Table.from_pylist(rows, schema=arrow_schema(DECLARED)), DECLARED)
    rules = row_rules(DECLARATION.source, "orders", WINDOW, NOW)
    found = figures(table, DECLARED, rules)
    reasons = split(table, DECLARED, rules).bad["quarantine_reason"].to_pylist()
    assert found.rows == len(rows)
    counts = {(name, column): n for name, column, n in found.broken}
    for rule in rules:
        told = sum(rule.reason in reason.split("; ") for reason in reasons)
        assert counts[rule.name, rule.column] == told
    assert any(counts.values()) == bool(reasons)
