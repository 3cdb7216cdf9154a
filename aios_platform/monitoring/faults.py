"""Data faults: what no season and no change of the world does to a table, but a broken feed does.

Drift asks whether a window differs; nearly every window does. A fault is a difference of another
kind: values that only make sense in another unit, columns that no longer go together, rows that
repeat. A model must not be trained on it, and its figures on such a window say nothing about it.
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from aios_platform.contracts.declaration import Table
from aios_platform.contracts.record import Record
from aios_platform.monitoring.summaries import ColumnSummary, TableSummary, tables_of

# Fewer rows than this look like anything by chance.
MIN_ROWS = 200
MIN_CORRELATION = 0.6
CORRELATION_LOSS = 0.4
MISSING_JUMP = 0.3
REPEATED_JUMP = 0.1
UNSEEN_SHARE = 0.5
FEWEST_ROWS = 0.65
# y = scale * x + shift turns what was delivered into what it used to be.
CONVERSIONS: dict[str, tuple[float, float]] = {
    "degrees Celsius instead of Fahrenheit": (1.8, 32.0),
    "degrees Fahrenheit instead of Celsius": (1 / 1.8, -32 / 1.8),
    "Kelvin instead of degrees Celsius": (1.0, -273.15),
    "kilometres instead of miles (or per hour)": (1 / 1.609344, 0.0),
    "miles instead of kilometres (or per hour)": (1.609344, 0.0),
    "metres per second instead of miles per hour": (2.236936, 0.0),
    "metres per second instead of knots": (1.943844, 0.0),
    "millimetres instead of inches": (1 / 25.4, 0.0),
    "inches instead of millimetres": (25.4, 0.0),
    "inches of mercury instead of hectopascal": (33.863886, 0.0),
    "feet instead of metres": (0.3048, 0.0),
    "metres instead of feet": (1 / 0.3048, 0.0),
    "kilograms instead of pounds": (2.204623, 0.0),
    "pounds instead of kilograms": (1 / 2.204623, 0.0),
    "a number 10 times as large": (0.1, 0.0),
    "a number 10 times as small": (10.0, 0.0),
    "per cent instead of shares, or cents instead of units": (0.01, 0.0),
    "shares instead of per cent, or units instead of cents": (100.0, 0.0),
    "thousandths": (0.001, 0.0),
    "thousands": (1000.0, 0.0),
    "hours instead of minutes, or minutes instead of seconds": (60.0, 0.0),
    "seconds instead of minutes, or minutes instead of hours": (1 / 60, 0.0),
    "the sign turned": (-1.0, 0.0),
}


class FaultKind(StrEnum):
    """What is wrong."""

    QUARANTINE = "quarantine"
    ROWS = "rows"
    REPEATED = "repeated"
    MISSING = "missing"
    CONSTANT = "constant"
    UNSEEN = "unseen"
    UNIT = "unit"
    LEVEL = "level"
    RELATION = "relation"


class Fault(Record):
    """One fault of one window."""

    kind: FaultKind
    table: str
    column: str = Field(default="", description="Empty: the table as a whole.")
    observed: float
    bound: float
    reason: str


class FaultReport(Record):
    """The faults of one window; none is what a window should have."""

    window: str
    faults: tuple[Fault, ...]
    compared_with: tuple[str, ...] = Field(
        description="Windows without faults that it was compared with, oldest first."
    )
    made_from: dict[str, str] = Field(
        default_factory=dict, description="Digests of the tables and of what was exempt."
    )


def find_faults(
    window: str,
    current: Mapping[str, TableSummary],
    history: Mapping[str, Mapping[str, TableSummary]],
    declared: Mapping[str, Table],
    *,
    max_quarantine_share: float,
    exempt: Sequence[str] = (),
    incomplete: bool = False,
    back: Mapping[str, int] | None = None,
) -> FaultReport:
    """Look for faults in a window.

    Args:
        window: Key of the window.
        current: Its tables.
        history: Tables without faults of earlier windows by window, oldest first; the last one is
            the closest in time.
        declared: The tables' declarations.
        max_quarantine_share: Share of bad rows at which a window is rejected; half of it is a
            fault.
        exempt: `table.column` or `table.rows` of what is not looked at.
        incomplete: Whether the window's labels are yet to come: then a column whose values become
            known later than their rows is not looked at.
        back: How many windows before this one each earlier one is; unset: they follow each other.
            Where windows are missing in between, a season may have gone further.
    """
    places = back or {key: len(history) - n for n, key in enumerate(history)}
    found = [
        fault
        for name, table in declared.items()
        if name in current
        for fault in _of_table(
            name,
            current[name],
            tables_of(history.values(), name),
            [places[key] for key, tables in history.items() if name in tables],
        )
        if not (incomplete and fault.column in _known_later(table))
    ]
    found += _quarantine(current, max_quarantine_share / 2)
    return FaultReport(
        window=window,
        faults=tuple(f for f in found if f"{f.table}.{f.column or 'rows'}" not in exempt),
        compared_with=tuple(history),
    )


def _known_later(declared: Table) -> set[str]:
    own = declared.known_at or declared.timestamp
    return {n for n, column in declared.columns.items() if column.known_at not in (None, own)}


def _quarantine(current: Mapping[str, TableSummary], bound: float) -> Iterator[Fault]:
    for name, table in current.items():
        delivered = table.rows + table.quarantined
        share = table.quarantined / delivered if delivered else 0.0
        if delivered >= MIN_ROWS and share > bound:
            yield Fault(
                kind=FaultKind.QUARANTINE, table=name, observed=share, bound=bound,
                reason=f"{share:.2%} of the rows are impossible and in quarantine; "
                f"{bound:.2%} is the bound.",
            )  # fmt: skip


def _of_table(
    name: str, table: TableSummary, past: list[TableSummary], back: list[int]
) -> Iterator[Fault]:
    if not past:
        return
    fewest = FEWEST_ROWS * min(earlier.rows for earlier in past)
    # One or two windows do not say how much the number of rows varies by itself.
    if len(past) >= 3 and fewest >= MIN_ROWS and table.rows < fewest:
        yield Fault(
            kind=FaultKind.ROWS, table=name, observed=table.rows, bound=fewest,
            reason=f"{table.rows:,} rows; no recent window had under {fewest / FEWEST_ROWS:,.0f}.",
        )  # fmt: skip
    if table.rows < MIN_ROWS or past[-1].rows < MIN_ROWS:
        return
    repeated = max(earlier.repeated for earlier in past) + REPEATED_JUMP
    if table.repeated > repeated:
        yield Fault(
            kind=FaultKind.REPEATED, table=name, observed=table.repeated, bound=repeated,
            reason=f"{table.repeated:.0%} of the rows repeat another one in all but its id.",
        )  # fmt: skip
    for column, now in table.columns.items():
        found = [
            (e.columns[column], n) for e, n in zip(past, back, strict=True) if column in e.columns
        ]
        if found:
            yield from _of_column(name, column, now, [e for e, _ in found], [n for _, n in found])
    yield from _relations(name, table, past)


def _of_column(
    table: str, column: str, now: ColumnSummary, before: list[ColumnSummary], back: list[int]
) -> Iterator[Fault]:
    def fault(kind: FaultKind, observed: float, bound: float, reason: str) -> Fault:
        return Fault(
            kind=kind, table=table, column=column, observed=observed, bound=bound,
            reason=f"{table}.{column}: {reason}",
        )  # fmt: skip

    most = max(earlier.missing for earlier in before) + MISSING_JUMP
    if now.missing > most:
        yield fault(
            FaultKind.MISSING, now.missing, most,
            f"{now.missing:.0%} of the values are missing; at most "
            f"{most - MISSING_JUMP:.0%} were before.",
        )  # fmt: skip
    usual = min(earlier.distinct for earlier in before)
    if now.distinct == 1 and usual > 10:
        yield fault(
            FaultKind.CONSTANT, 1, usual, f"every value is the same; {usual:,} differed before."
        )
    elif now.categories is not None:
        yield from _unseen(now, before, fault)
    elif now.quantiles and before[-1].quantiles:
        yield from _level(now, before, back, fault)


def _unseen(now: ColumnSummary, before: list[ColumnSummary], fault: "object") -> Iterator[Fault]:
    assert callable(fault)
    if now.categories is None or any(earlier.categories is None for earlier in before):
        return
    known = {value for earlier in before for value in earlier.categories or ()}
    pairs = zip(now.categories, now.shares, strict=True)
    unseen = {value: share for value, share in pairs if value not in known}
    share = sum(unseen.values())
    if known and share > UNSEEN_SHARE:
        yield fault(
            FaultKind.UNSEEN, share, UNSEEN_SHARE,
            f"{share:.0%} of the values were never seen before, e.g. '{next(iter(unseen))[:40]}'.",
        )  # fmt: skip


def _level(
    now: ColumnSummary, before: list[ColumnSummary], back: list[int], fault: "object"
) -> Iterator[Fault]:
    assert callable(fault)
    told = [(np.asarray(e.quantiles), n) for e, n in zip(before, back, strict=True) if e.quantiles]
    latest, gap = told[-1]
    delivered = np.asarray(now.quantiles)
    spread = float(np.quantile(latest, 0.75) - np.quantile(latest, 0.25))
    distance = _distance(delivered, latest)
    steps = [_distance(one, other) / (m - n) for (one, m), (other, n) in pairwise(told)]
    # A season that turns goes with the square of the windows that are missing in between.
    unusual = max(3 * max(steps) * gap, spread / 4) if steps else 0.75 * spread
    if spread > 0 and distance > gap * min(unusual, 1.5 * spread):
        conversion, rest = min(
            (
                (name, _distance(np.sort(scale * delivered + shift), latest))
                for name, (scale, shift) in CONVERSIONS.items()
            ),
            key=lambda pair: pair[1],
        )
        # A month's own change leaves some distance after the right conversion, too.
        close = (0.5 if distance > 1.5 * spread else 0.25) * distance
        if rest < min(close, max(spread, *steps, 0.0)):
            yield fault(
                FaultKind.UNIT, distance, rest,
                f"the values look like {conversion} (median {statistics.median(delivered):.4g} "
                f"after {statistics.median(latest):.4g}).",
            )  # fmt: skip
            return
    low = min(earlier.low for earlier in before if earlier.low is not None)
    high = max(earlier.high for earlier in before if earlier.high is not None)
    reach = (high - low) / 2
    lower, upper = (float(np.quantile(delivered, q)) for q in (0.25, 0.75))
    if reach > 0 and (lower > high + reach or upper < low - reach):
        yield fault(
            FaultKind.LEVEL, statistics.median(delivered), high if lower > high else low,
            f"half of the values lie between {lower:.4g} and {upper:.4g}, far from everything "
            f"before ({low:.4g} to {high:.4g}).",
        )  # fmt: skip


def _distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Mean distance of quantiles: Wasserstein's, of what lies between them."""
    return float(np.abs(one - other).mean())


def _relations(name: str, table: TableSummary, past: list[TableSummary]) -> Iterator[Fault]:
    for pair, now in table.correlations.items():
        before = [earlier.correlations[pair] for earlier in past if pair in earlier.correlations]
        if not before:
            continue
        # The weakest of the recent windows: a relation that comes and goes is none.
        weakest = min(before, key=abs)
        steady = all(value * weakest > 0 for value in before)
        bound = abs(weakest) - CORRELATION_LOSS
        kept = now if weakest > 0 else -now
        if steady and abs(weakest) >= MIN_CORRELATION and kept < bound:
            one, other = pair.split("|")
            yield Fault(
                kind=FaultKind.RELATION, table=name, column=other, observed=now, bound=bound,
                reason=f"{name}.{one} and {name}.{other} no longer go together: their rank "
                f"correlation is {now:.2f} after {weakest:.2f}.",
            )  # fmt: skip
