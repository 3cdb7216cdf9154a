"""Validation of a delivered table by a Great Expectations suite derived from its declaration.

Great Expectations costs ten times a query on a large frame, so one DuckDB query reduces the
table to its figures (rows, broken rules, age of the newest row) and the suite judges those: one
row, one column per figure. Only to explain a rejection does it see rows (`explanation`).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pyarrow as pa

from aios_platform.contracts.declaration import Table
from aios_platform.contracts.record import Record
from aios_platform.contracts.windows import Window
from aios_platform.data.rules import VIEW, Rule, quoted, uniqueness
from aios_platform.errors import DataError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ExpectationResult(Record):
    """What one expectation found.

    Args:
        name: What is expected: columns, row_count, volume, freshness, quarantined_share, or the
            name of a rule about rows, whose figure is the number of rows that break it.
        column: The column it is about, if any.
        observed: The figure; None where there is none (the age of the newest of no rows).
        low: Smallest good figure.
        high: Largest good figure.
        success: Whether the expectation is met.
        examples: Values that broke it, for people; never more than a few.
    """

    name: str
    column: str | None = None
    observed: float | None = None
    low: float | None = None
    high: float | None = None
    success: bool
    examples: tuple[str, ...] = ()


class ValidationReport(Record):
    """Every expectation of one table in one window.

    Args:
        table: Name of the table.
        window: Key of the window.
        rows: Rows delivered.
        quarantined: Rows taken out.
        results: One result per expectation.
    """

    table: str
    window: str
    rows: int
    quarantined: int = 0
    results: tuple[ExpectationResult, ...]

    @property
    def success(self) -> bool:
        """Whether every expectation is met, and there was one."""
        return bool(self.results) and all(r.success for r in self.results)

    @property
    def failures(self) -> tuple[ExpectationResult, ...]:
        """The expectations that are not met."""
        return tuple(r for r in self.results if not r.success)


class Figures(Record):
    """What one aggregate query says of a table.

    Args:
        columns: Number of columns.
        rows: Number of rows.
        broken: Per rule, how many rows break it.
        newest: The youngest event time, if the table has one.
    """

    columns: int
    rows: int
    broken: tuple[tuple[str, str, int], ...]
    newest: datetime | None = None


def figures(table: pa.Table, declared: Table, rules: Sequence[Rule]) -> Figures:
    """Count rows, rows that break each rule, and find the newest row, in one query.

    Args:
        table: A canonical table.
        declared: Its declaration.
        rules: Rules about its rows; that on unique row ids is added.
    """
    import duckdb

    columns = ["count(*)"]
    columns += [f"count(*) FILTER (WHERE {rule.broken})" for rule in rules]
    unique = uniqueness(declared)
    if unique:
        ids = ", ".join(quoted(column) for column in declared.row_id)
        columns.append(f"count(*) - count(DISTINCT row({ids}))")
    time = quoted(declared.timestamp) if declared.timestamp else "NULL::TIMESTAMPTZ"
    columns.append(f"epoch_us(max({time}))")
    with duckdb.connect() as connection:
        connection.register(VIEW, table)
        query = f"SELECT {', '.join(columns)} FROM {VIEW}"  # noqa: S608  (identifiers are quoted)
        ((rows, *counts, newest),) = connection.sql(query).fetchall()
    every = [*rules, unique] if unique else list(rules)
    return Figures(
        columns=table.num_columns,
        rows=rows,
        broken=tuple((r.name, r.column, n) for r, n in zip(every, counts, strict=True)),
        newest=_from_micros(newest),
    )


def validate(
    name: str,
    declared: Table,
    found: Figures,
    *,
    window: Window,
    now: datetime,
    quarantined: int,
    max_quarantine_share: float,
    recent_rows: Sequence[int],
) -> ValidationReport:
    """Judge a table's figures by the suite that its declaration implies.

    A rule about rows is met when no more rows break it than may be quarantined.

    Args:
        name: Name of the table.
        declared: Its declaration.
        found: Its figures.
        window: The window that was delivered.
        now: When it was delivered.
        quarantined: Rows taken out of it.
        max_quarantine_share: Largest share of rows that may be taken out.
        recent_rows: Row counts of recent windows; none, and volume is not judged.

    Raises:
        DataError: Great Expectations failed to evaluate a figure.
    """
    share = quarantined / found.rows if found.rows else 1.0
    columns = len(declared.columns)
    wanted: list[tuple[str, str | None, float | None, float | None, float | None]] = [
        ("columns", None, found.columns, columns, columns),
        ("row_count", None, found.rows, declared.min_rows, None),
        ("quarantined_share", None, share, 0.0, max_quarantine_share),
    ]
    if declared.volume_tolerance is not None and recent_rows:
        median = statistics.median(recent_rows)
        low, high = (median * (1 + sign * declared.volume_tolerance) for sign in (-1, 1))
        wanted.append(("volume", None, found.rows, max(low, 0.0), high))
    if declared.max_silence_hours is not None:
        end = min(window.end, now)
        silence = (end - found.newest).total_seconds() / 3600 if found.newest else math.inf
        wanted.append(("freshness", declared.timestamp, silence, None, declared.max_silence_hours))
    allowed = math.floor(max_quarantine_share * found.rows)
    wanted += [(rule, column, n, 0, allowed) for rule, column, n in found.broken]
    met = _judge([(observed, low, high) for _, _, observed, low, high in wanted])
    return ValidationReport(
        table=name,
        window=window.key,
        rows=found.rows,
        quarantined=quarantined,
        results=tuple(
            ExpectationResult(
                name=rule,
                column=column,
                observed=observed if observed is not None and math.isfinite(observed) else None,
                low=low,
                high=high,
                success=success,
            )
            for (rule, column, observed, low, high), success in zip(wanted, met, strict=True)
        ),
    )


@cache
def _frames() -> Any:
    """A Great Expectations batch definition over frames, without files, prints or progress bars."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("delivered")
    return source.add_dataframe_asset("figures").add_batch_definition_whole_dataframe("all")


def run_suite(frame: Any, expectations: Sequence[Any], result_format: str) -> list[Any]:
    """Run expectations on a pandas frame; results come in the order of the expectations.

    Raises:
        DataError: An expectation could not be evaluated. Great Expectations itself reports that
            as an unmet expectation, which would pass a defect of ours off as bad data.
    """
    import great_expectations as gx

    for place, expectation in enumerate(expectations):
        expectation.meta = {"place": place}
    suite = gx.ExpectationSuite(name="declared", expectations=list(expectations))
    batch = _frames().get_batch({"dataframe": frame})
    outcome = batch.validate(suite, result_format=result_format)
    results: list[Any] = [None] * len(expectations)
    for result in outcome.results:
        if _raised(result.exception_info or {}):
            raise _not_evaluated(result)
        results[result.expectation_config.meta["place"]] = result
    if any(result is None for result in results):
        raise _not_evaluated(None)
    return results


def _judge(bounds: Sequence[tuple[float | None, float | None, float | None]]) -> list[bool]:
    import pandas as pd
    from great_expectations import expectations as gxe

    # Great Expectations passes what it cannot see: an empty frame, a missing figure. Neither
    # reaches it, and both fail.
    seen = [
        place
        for place, (observed, _, _) in enumerate(bounds)
        if observed is not None and math.isfinite(observed)
    ]
    frame = pd.DataFrame({f"figure_{place}": [float(bounds[place][0] or 0.0)] for place in seen})
    suite = [gxe.ExpectTableRowCountToEqual(value=1)]
    for place in seen:
        _, low, high = bounds[place]
        suite.append(
            gxe.ExpectColumnMaxToBeBetween(column=f"figure_{place}", min_value=low, max_value=high)
        )
    results = run_suite(frame, suite, "BASIC")
    met = [False] * len(bounds)
    if results[0].success:
        for place, result in zip(seen, results[1:], strict=True):
            met[place] = bool(result.success)
    return met


def _raised(info: Mapping[str, Any]) -> bool:
    """Whether an exception is told of, by the expectation itself or by one of its metrics."""
    return bool(info.get("raised_exception")) or any(
        isinstance(part, Mapping) and _raised(part) for part in info.values()
    )


def _not_evaluated(result: Any) -> DataError:
    info = "no result" if result is None else str(result.exception_info)
    return DataError(
        f"Great Expectations could not evaluate an expectation: {info}",
        remedy="This is no fault of the data; report it with the full message.",
    )


def _from_micros(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + timedelta(microseconds=value)
