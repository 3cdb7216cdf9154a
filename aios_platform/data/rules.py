"""What a good row is: one rule per thing that a declaration says about a column.

A rule is an SQL condition that is true of a bad row, so counting and finding bad rows are the
same rule, evaluated by the same engine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from aios_platform.contracts.declaration import Column, ColumnType, Source, Table
from aios_platform.contracts.windows import Window

VIEW = "delivered"
POSITION = "aios position"


@dataclass(frozen=True)
class Rule:
    """One rule about the rows of a table.

    Args:
        name: What is expected: not_null, length, finite, range, values, in_window, known or
            unique.
        column: The column it is about.
        reason: What is wrong with a row that breaks it, for people.
        broken: SQL condition, never null, true of a row that breaks it.
    """

    name: str
    column: str
    reason: str
    broken: str


def row_rules(source: Source, name: str, window: Window, now: datetime) -> list[Rule]:
    """The rules for the rows of one table.

    Args:
        source: The declared source.
        name: The table.
        window: The window that was delivered.
        now: When it was delivered; nothing can have become known later.
    """
    table = source.tables[name]
    known = {table.known_at or table.timestamp, *(c.known_at for c in table.columns.values())}
    rules = [r for column, declared in table.columns.items() for r in _values(column, declared)]
    if table.timestamp:
        column = quoted(table.timestamp)
        start, end = _instant(window.start), _instant(window.end)
        rules.append(
            Rule(
                "in_window",
                table.timestamp,
                f"{table.timestamp}: outside the window",
                f"coalesce({column} < {start} OR {column} >= {end}, FALSE)",
            )
        )
    for column in table.columns:
        if column in known:
            broken = f"coalesce({quoted(column)} > {_instant(now)}, FALSE)"
            rules.append(Rule("known", column, f"{column}: in the future", broken))
    return rules


def uniqueness(table: Table) -> Rule | None:
    """The rule that row ids are unique; its condition needs `numbered`.

    Rows that agree in everything are one row delivered more than once: the first stays. Rows
    that share an id and differ are all bad, since nothing says which of them is right.
    """
    if not table.row_id:
        return None
    return Rule(
        "unique",
        ", ".join(table.row_id),
        f"{', '.join(table.row_id)}: not unique",
        '("occurrence" > 1 OR "contents" > 1)',
    )


def numbered(table: Table) -> str:
    """SQL of a query over the view of a table, with what the rule on uniqueness needs."""
    if not table.row_id:
        return f"SELECT * FROM {VIEW}"  # noqa: S608  (a constant)
    ids = ", ".join(quoted(column) for column in table.row_id)
    everything = ", ".join(quoted(column) for column in table.columns)
    return f"""
        SELECT *,
            row_number() OVER (PARTITION BY {ids} ORDER BY {quoted(POSITION)}) AS "occurrence",
            CASE WHEN min("content") OVER (PARTITION BY {ids})
                = max("content") OVER (PARTITION BY {ids}) THEN 1 ELSE 2 END AS "contents"
        FROM (SELECT *, md5(row({everything})::VARCHAR) AS "content" FROM {VIEW})
    """  # noqa: S608  (identifiers are quoted)


def quoted(identifier: str) -> str:
    """An SQL identifier of any text."""
    return '"' + identifier.replace('"', '""') + '"'


def _values(name: str, declared: Column) -> Iterator[Rule]:
    column = quoted(name)
    if not declared.nullable:
        yield Rule("not_null", name, f"{name}: missing", f"({column} IS NULL)")
    if declared.type is ColumnType.VECTOR:
        yield from _elements(name, declared)
        return
    finite = "TRUE"
    if declared.type is ColumnType.FLOAT:
        finite = f"isfinite({column})"
        broken = f"coalesce(NOT {finite}, FALSE)"
        yield Rule("finite", name, f"{name}: not finite", broken)
    if declared.min is not None or declared.max is not None:
        bounds = []
        if declared.min is not None:
            bounds.append(f"{column} < {declared.min!r}")
        if declared.max is not None:
            bounds.append(f"{column} > {declared.max!r}")
        broken = f"coalesce({finite} AND ({' OR '.join(bounds)}), FALSE)"
        yield Rule("range", name, f"{name}: {_range(declared)}", broken)
    if declared.values is not None:
        listed = ", ".join("'" + value.replace("'", "''") + "'" for value in declared.values)
        allowed = f"{column} IN ({listed})" if listed else "FALSE"
        broken = f"({column} IS NOT NULL AND NOT ({allowed}))"
        yield Rule("values", name, f"{name}: not a declared value", broken)


def _elements(name: str, declared: Column) -> Iterator[Rule]:
    """Rules for vectors: their length, and each of their elements."""
    column = quoted(name)
    yield Rule(
        "length",
        name,
        f"{name}: not of {declared.length} elements",
        f"coalesce(len({column}) <> {declared.length}, FALSE)",
    )
    strange = f"len(list_filter({column}, lambda x: x IS NULL OR NOT isfinite(x))) > 0"
    yield Rule("finite", name, f"{name}: an element is not finite", f"coalesce({strange}, FALSE)")
    if declared.min is not None or declared.max is not None:
        bounds = []
        if declared.min is not None:
            bounds.append(f"x < {declared.min!r}")
        if declared.max is not None:
            bounds.append(f"x > {declared.max!r}")
        outside = f"isfinite(x) AND ({' OR '.join(bounds)})"
        broken = f"coalesce(len(list_filter({column}, lambda x: {outside})) > 0, FALSE)"
        yield Rule("range", name, f"{name}: an element is {_range(declared)}", broken)


def _range(declared: Column) -> str:
    if declared.min is None:
        return f"above {declared.max:g}"
    if declared.max is None:
        return f"below {declared.min:g}"
    return f"outside {declared.min:g} to {declared.max:g}"


def _instant(moment: datetime) -> str:
    return f"TIMESTAMPTZ '{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00'"
