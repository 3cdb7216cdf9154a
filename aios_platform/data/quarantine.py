"""Taking bad rows out of a delivered table, each with its reasons."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from aios_platform.contracts.declaration import Table
from aios_platform.data.rules import POSITION, VIEW, Rule, numbered, quoted, uniqueness

REASON = "quarantine_reason"


@dataclass(frozen=True)
class Split:
    """A delivered table, divided. Every row is in exactly one of the two, in the order it came.

    Args:
        good: The rows that break no rule.
        bad: The others, with `quarantine_reason`: their reasons, joined by semicolons.
    """

    good: pa.Table
    bad: pa.Table

    @classmethod
    def clean(cls, table: pa.Table) -> "Split":
        """A table without bad rows."""
        return cls(table, _with_reason(table.slice(0, 0), pa.array([], pa.string())))


def split(table: pa.Table, declared: Table, rules: Sequence[Rule]) -> Split:
    """Divide a canonical table into rows that break no rule and rows that break one or more.

    Args:
        table: A canonical table.
        declared: Its declaration.
        rules: Rules about its rows; that on unique row ids is added.
    """
    import duckdb
    import numpy as np

    unique = uniqueness(declared)
    every = [*rules, unique] if unique else list(rules)
    reasons = ", ".join(
        f"CASE WHEN {rule.broken} THEN '{rule.reason.replace(chr(39), chr(39) * 2)}' END"
        for rule in every
    )
    query = f"""
        SELECT {quoted(POSITION)}, concat_ws('; ', {reasons}) AS "reason"
        FROM ({numbered(declared)})
        WHERE {" OR ".join(rule.broken for rule in every) or "FALSE"}
        ORDER BY 1
    """  # noqa: S608  (identifiers and literals are quoted)
    positions = pa.array(range(table.num_rows), pa.int64())
    with duckdb.connect() as connection:
        connection.register(VIEW, table.append_column(POSITION, positions))
        found = connection.sql(query).to_arrow_table() if every else None
    if found is None or found.num_rows == 0:
        return Split.clean(table)
    bad_positions = found[POSITION].to_numpy()
    keep = np.ones(table.num_rows, dtype=bool)
    keep[bad_positions] = False
    bad = table.take(pa.array(bad_positions))
    return Split(table.filter(pa.array(keep)), _with_reason(bad, found["reason"].cast(pa.string())))


def _with_reason(table: pa.Table, reasons: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.append_column(pa.field(REASON, pa.string()), reasons)
