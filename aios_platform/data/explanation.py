"""Why a delivery was rejected: row-level Great Expectations on the columns that broke a rule.

Run on a rejection only, and on the columns concerned only.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from aios_platform.contracts.declaration import ColumnType, Table
from aios_platform.contracts.windows import Window
from aios_platform.data.validation import ExpectationResult, run_suite

EXAMPLES = 3
LONGEST_EXAMPLE = 60
LARGEST_DOUBLE = 1.7976931348623157e308


def examples(
    table: pa.Table,
    declared: Table,
    failures: Sequence[ExpectationResult],
    *,
    window: Window,
    now: datetime,
) -> list[ExpectationResult]:
    """Failed expectations about rows, with a few of the values that broke them.

    Args:
        table: The canonical table that was delivered.
        declared: Its declaration.
        failures: What failed.
        window: The window that was delivered.
        now: When it was delivered.

    Returns:
        The failures in their order; those that are not about rows as they were.
    """
    expectations = {
        place: expectation
        for place, failure in enumerate(failures)
        if (expectation := _expectation(declared, failure, window, now)) is not None
    }
    if not expectations or table.num_rows == 0:
        return list(failures)
    concerned = {c for f in failures for c in (f.column or "").split(", ") if c in declared.columns}
    frame = table.select([c for c in table.column_names if c in concerned]).to_pandas()
    results = run_suite(frame, list(expectations.values()), "SUMMARY")
    found = dict(zip(expectations, results, strict=True))
    return [
        failure.model_copy(update={"examples": _values(found[place])})
        if place in found
        else failure
        for place, failure in enumerate(failures)
    ]


def _expectation(
    declared: Table, failure: ExpectationResult, window: Window, now: datetime
) -> Any | None:
    from great_expectations import expectations as gxe

    if failure.name == "unique" and failure.column:
        columns = failure.column.split(", ")
        if len(columns) == 1:
            return gxe.ExpectColumnValuesToBeUnique(column=columns[0])
        return gxe.ExpectCompoundColumnsToBeUnique(column_list=columns)
    if failure.column not in declared.columns:
        return None
    column, kind = failure.column, declared.columns[failure.column]
    if kind.type is ColumnType.VECTOR:
        # Great Expectations has nothing to say of lists.
        return None
    match failure.name:
        case "finite":
            return gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=-LARGEST_DOUBLE, max_value=LARGEST_DOUBLE
            )
        case "range":
            return gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=kind.min, max_value=kind.max
            )
        case "values":
            return gxe.ExpectColumnValuesToBeInSet(column=column, value_set=list(kind.values or ()))
        case "in_window":
            return gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=window.start, max_value=window.end, strict_max=True
            )
        case "known":
            return gxe.ExpectColumnValuesToBeBetween(column=column, max_value=now)
    return None


def _values(result: Any) -> tuple[str, ...]:
    found = (result.result or {}).get("partial_unexpected_list") or []
    distinct = dict.fromkeys(_text(value) for value in found)
    return tuple(distinct)[:EXAMPLES]


def _text(value: Any) -> str:
    # What a row holds is not ours: keep it short and on one line.
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 1] + "…"
