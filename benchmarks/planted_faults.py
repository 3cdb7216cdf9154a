"""Data faults planted into real months of flights, and real months left alone.

Each kind of fault is planted into each of four months; what `monitoring.faults` says of it is
compared with what was planted. Then every month as it is: none may be called faulty. All of it
three times over, as the platform sees a window:

- `whole`: everything that is known of the month today.
- `as it came`: what was known when the month ended, as it is scored in a replay: flights still in
  the air have no outcome. The months before were read again with theirs.
- `with labels`: what was known two days later, as it is measured and trained on.

Bad rows go to quarantine first, as they do when a window is taken in. Some faults are so plain that
ingestion refuses the window: it is never trained on either, and is shown as `refused`.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.components.model_lifecycle.discovery import declared_model
from aios_platform.contracts.windows import Window
from aios_platform.data.canonical import canonical
from aios_platform.data.quarantine import Split, split
from aios_platform.data.rules import row_rules
from aios_platform.data.validation import figures, validate
from aios_platform.defs.flight_delay.source import read_window
from aios_platform.known import INSTANT, as_known
from aios_platform.monitoring.faults import find_faults
from aios_platform.monitoring.summaries import TableSummary, summarise

MONTHS = [f"2013-{month:02}" for month in range(1, 13)]
INTO = ("2013-04", "2013-07", "2013-10", "2013-12")
HISTORY, RECENT = 3, 6
ALWAYS_FOUND = 8
NAMES = declared_model("flight_delay")
SOURCE, LABEL = NAMES.declaration.source, NAMES.declaration.label
GENERATOR = np.random.default_rng(0)
Plant = Callable[[pa.Table], pa.Table]
Tables = dict[str, pa.Table]
Summaries = dict[str, TableSummary]
Past = dict[str, Summaries]
REFUSED = "refused"


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64."""
    return table[name].cast(pa.float64()).to_numpy()


def column(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Plants a changed column of numbers."""

    def plant(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        values = pa.array(change(numbers(table, name)), from_pandas=True)
        kind = table.schema.types[place]
        return table.set_column(place, name, values.cast(kind, safe=False))

    return plant


def nothing(name: str) -> Plant:
    """Plants a column without any value."""

    def plant(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, pa.nulls(table.num_rows, table.schema.types[place]))

    return plant


def lower_case(table: pa.Table) -> pa.Table:
    """Carriers in lower case."""
    place = table.schema.get_field_index("carrier")
    return table.set_column(place, "carrier", pc.utf8_lower(table["carrier"]))


def kept(share: float) -> Plant:
    """Plants the loss of the other rows, by chance."""

    def plant(table: pa.Table) -> pa.Table:
        count = int(share * table.num_rows)
        rows = GENERATOR.choice(table.num_rows, count, replace=False)
        return table.take(pa.array(np.sort(rows)))

    return plant


def repeated(table: pa.Table) -> pa.Table:
    """A third of the rows again, under other ids."""
    again = table.slice(0, table.num_rows // 3)
    place = table.schema.get_field_index("flight_id")
    ids = pa.array([f"{name}-again" for name in again["flight_id"].to_pylist()])
    ids = ids.cast(table.schema.types[place])
    return pa.concat_tables([table, again.set_column(place, "flight_id", ids)])


PLANTED: dict[str, tuple[str, Plant]] = {
    "temperature in Celsius": ("weather", column("temperature", lambda x: (x - 32) / 1.8)),
    "humidity as shares": ("weather", column("humidity", lambda x: x / 100)),
    "distance in kilometres": ("flights", column("distance", lambda x: x * 1.609344)),
    "minutes delivered as hours": ("flights", column("scheduled_minutes", lambda x: x / 60)),
    "a column shifted by a row": ("flights", column("scheduled_minutes", lambda x: np.roll(x, 1))),
    "half of the rows missing": ("flights", kept(0.5)),
    "two fifths of the rows missing": ("flights", kept(0.6)),
    "a third of the rows repeated": ("flights", repeated),
    "a sensor that sends nothing": ("weather", nothing("temperature")),
    "a sensor stuck at one value": ("weather", column("wind_speed", np.zeros_like)),
    "codes in lower case": ("flights", lower_case),
    "pressure off by 150": ("weather", column("pressure", lambda x: x + 150)),
    "wind in kilometres per hour": ("weather", column("wind_speed", lambda x: x * 1.609344)),
    "one column's rows shuffled": ("flights", column("arrival_delay", GENERATOR.permutation)),
}


@dataclass(frozen=True)
class View:
    """One way in which the platform sees windows.

    Attributes:
        name: For people.
        after: How long after a window's end it is read; None: today.
    """

    name: str
    after: timedelta | None

    def moment(self, window: Window) -> datetime | None:
        """The clock with which a window is read."""
        return None if self.after is None else window.end + self.after


WHOLE = View("whole", None)
SETTLED = View("with labels", timedelta(days=LABEL.maturity_days))
CAME = View("as it came", timedelta(0))
VIEWS = (WHOLE, CAME, SETTLED)


SPENT: list[float] = []


def taken_in(window: Window, delivered: Tables, view: View, past: Past) -> Summaries | None:
    """What ingestion leaves of a delivery, summarised; None: it is refused."""
    moment = view.moment(window)
    now = moment or datetime.now(UTC)
    place = MONTHS.index(window.key)
    recent = [past[key] for key in MONTHS[max(0, place - RECENT) : place]][::-1]
    found = {}
    for name, declared in SOURCE.tables.items():
        table = canonical(delivered[name], declared)
        if moment is not None:
            label = LABEL if name == SOURCE.rows else None
            table = as_known(table, declared, pa.scalar(moment, INSTANT), label)
        rules = row_rules(SOURCE, name, window, now)
        told = figures(table, declared, rules)
        broken = any(count for _, _, count in told.broken)
        parts = split(table, declared, rules) if broken else Split.clean(table)
        report = validate(
            name,
            declared,
            told,
            window=window,
            now=now,
            quarantined=parts.bad.num_rows,
            max_quarantine_share=SOURCE.max_quarantine_share,
            recent_rows=[tables[name].rows for tables in recent],
        )
        if not report.success:
            return None
        begin = time.perf_counter()
        found[name] = summarise(parts.good, declared, quarantined=parts.bad.num_rows)
        SPENT.append(time.perf_counter() - begin)
    return found


def faults(key: str, now: Summaries | None, past: Past) -> list[str]:
    """What is called a fault of a window, against the last ones before it."""
    if now is None:
        return [REFUSED]
    place = MONTHS.index(key)
    history = {k: past[k] for k in MONTHS[max(0, place - HISTORY) : place]}
    report = find_faults(
        key, now, history, SOURCE.tables, max_quarantine_share=SOURCE.max_quarantine_share
    )
    return [f"{fault.kind} {fault.column}".strip() for fault in report.faults]


def clean_months(delivered: dict[str, Tables], view: View, past: Past | None = None) -> Past:
    """The months as they are, in order.

    Args:
        delivered: What the source has of each.
        view: When each is read.
        past: What is there of earlier months; None: they were read with the same view.
    """
    found: Past = {}
    for key in MONTHS:
        window = NAMES.declaration.windows.window(key)
        tables = taken_in(window, delivered[key], view, found if past is None else past)
        if tables is None:
            raise SystemExit(f"{key} is refused as it is")
        found[key] = tables
    return found


def main() -> int:
    """Print what was planted and what was found; 1 where a target is missed."""
    windows = {key: NAMES.declaration.windows.window(key) for key in MONTHS}
    delivered = {key: dict(read_window(window)) for key, window in windows.items()}
    whole, settled = (clean_months(delivered, view) for view in (WHOLE, SETTLED))
    # When a month comes, those before it have been read again with their labels.
    clean = {
        WHOLE.name: whole,
        CAME.name: clean_months(delivered, CAME, settled),
        SETTLED.name: settled,
    }
    past = {WHOLE.name: whole, CAME.name: settled, SETTLED.name: settled}
    print(f"{'planted':32}" + "".join(f"{view.name:>14}" for view in VIEWS) + "  called")
    always, named = [], []
    for what, (name, plant) in PLANTED.items():
        changed = {key: {**delivered[key], name: plant(delivered[key][name])} for key in INTO}
        counts, words = [], set()
        for view in VIEWS:
            before = past[view.name]
            called = [
                faults(key, taken_in(windows[key], changed[key], view, before), before)
                for key in INTO
            ]
            counts.append(sum(map(bool, called)))
            words |= {word for found in called for word in found}
        if min(counts) == len(INTO):
            (always if REFUSED in words else named).append(what)
        shown = "".join(f"{f'{count} of {len(INTO)}':>14}" for count in counts)
        print(f"{what:32}{shown}  {', '.join(sorted(words)) or '-'}")
    alarms = {
        view.name: {k: f for k in MONTHS if (f := faults(k, clean[view.name][k], past[view.name]))}
        for view in VIEWS
    }
    print(f"\n{len(named)} kinds are always called a data fault: {'; '.join(named)}")
    print(f"{len(always)} more are, or are refused: {'; '.join(always)}")
    for view in VIEWS:
        found = alarms[view.name]
        print(f"{len(MONTHS)} months as they are, {view.name}: {len(found)} faulty {found or ''}")
    print(f"{3 * sum(SPENT) / len(SPENT):.2f} s to summarise a month's three tables")
    return 1 if any(alarms.values()) or len(named) + len(always) < ALWAYS_FOUND else 0


if __name__ == "__main__":
    sys.exit(main())
