"""Data faults planted into real months of flights, and real months left alone.

Each kind of fault is planted into each of four months; what `monitoring.faults` says of it is
compared with what was planted. Then every month as it is: none may be called faulty.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from aios_platform.components.model_lifecycle.discovery import declared_model
from aios_platform.defs.flight_delay.source import read_window
from aios_platform.monitoring.faults import find_faults
from aios_platform.monitoring.summaries import TableSummary, summarise

MONTHS = [f"2013-{month:02}" for month in range(1, 13)]
INTO = ("2013-04", "2013-07", "2013-10", "2013-12")
HISTORY = 3
NAMES = declared_model("flight_delay")
SOURCE = NAMES.declaration.source
GENERATOR = np.random.default_rng(0)
Plant = Callable[[pa.Table], pa.Table]


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64."""
    return table[name].cast(pa.float64()).to_numpy()


def column(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Plants a changed column of numbers."""

    def plant(table: pa.Table) -> pa.Table:
        values = pa.array(change(numbers(table, name)), from_pandas=True)
        return table.set_column(table.schema.get_field_index(name), name, values)

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


def half(table: pa.Table) -> pa.Table:
    """Every other row, by chance."""
    rows = GENERATOR.choice(table.num_rows, table.num_rows // 2, replace=False)
    return table.take(pa.array(np.sort(rows)))


def repeated(table: pa.Table) -> pa.Table:
    """A third of the rows again, under other ids."""
    again = table.slice(0, table.num_rows // 3)
    place = table.schema.get_field_index("flight_id")
    ids = pa.array([f"{name}-again" for name in again["flight_id"].to_pylist()])
    ids = ids.cast(table.schema.types[place])
    return pa.concat_tables([table, again.set_column(place, "flight_id", ids)])


PLANTED: dict[str, tuple[str, Plant]] = {
    "temperature in Celsius": ("weather", column("temperature", lambda x: (x - 32) / 1.8)),
    "distance in kilometres": ("flights", column("distance", lambda x: x * 1.609344)),
    "minutes delivered as hours": ("flights", column("scheduled_minutes", lambda x: x / 60)),
    "a column shifted by a row": ("flights", column("scheduled_minutes", lambda x: np.roll(x, 1))),
    "half of the rows missing": ("flights", half),
    "a third of the rows repeated": ("flights", repeated),
    "a sensor that sends nothing": ("weather", nothing("temperature")),
    "a sensor stuck at one value": ("weather", column("wind_speed", np.zeros_like)),
    "codes in lower case": ("flights", lower_case),
    "pressure off by 150": ("weather", column("pressure", lambda x: x + 150)),
    "wind in kilometres per hour": ("weather", column("wind_speed", lambda x: x * 1.609344)),
    "one column's rows shuffled": ("flights", column("arrival_delay", GENERATOR.permutation)),
}


def summary(name: str, table: pa.Table) -> TableSummary:
    """A table as the platform summarises it."""
    return summarise(table, SOURCE.tables[name], quarantined=0)


def main() -> int:
    """Print what was planted and what was found; 1 where a clean month is called faulty."""
    delivered = {key: read_window(NAMES.declaration.windows.window(key)) for key in MONTHS}
    begin = time.perf_counter()
    known = {
        key: {name: summary(name, table) for name, table in tables.items()}
        for key, tables in delivered.items()
    }
    seconds = (time.perf_counter() - begin) / len(MONTHS)

    def faults(key: str, tables: dict[str, TableSummary]) -> list[str]:
        place = MONTHS.index(key)
        history = {k: known[k] for k in MONTHS[max(0, place - HISTORY) : place]}
        report = find_faults(
            key, tables, history, SOURCE.tables, max_quarantine_share=SOURCE.max_quarantine_share
        )
        return [f"{fault.kind} {fault.column}".strip() for fault in report.faults]

    print(f"{'planted':32} {'found in':>10}  called")
    for what, (name, plant) in PLANTED.items():
        called = [
            faults(key, {**known[key], name: summary(name, plant(delivered[key][name]))})
            for key in INTO
        ]
        words = ", ".join(sorted({word for words in called for word in words})) or "-"
        print(f"{what:32} {sum(map(bool, called)):>5} of {len(INTO)}  {words}")
    alarms = {key: found for key in MONTHS if (found := faults(key, known[key]))}
    print(f"\n{len(MONTHS)} months as they are: {len(alarms)} called faulty {alarms or ''}")
    print(f"{seconds:.2f} s to summarise a month's three tables")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
