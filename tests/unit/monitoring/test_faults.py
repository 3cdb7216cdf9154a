"""Planted faults are found; windows that merely differ are not called faults."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from aios_platform.contracts.declaration import Column, ColumnType, Table
from aios_platform.monitoring.faults import CONVERSIONS, FaultKind, FaultReport, find_faults
from aios_platform.monitoring.summaries import TableSummary, summarise

DECLARED = Table(
    row_id=("id",),
    columns={
        "id": Column(type=ColumnType.STRING),
        "temperature": Column(type=ColumnType.FLOAT, nullable=True),
        "dew_point": Column(type=ColumnType.FLOAT, nullable=True),
        "rain": Column(type=ColumnType.FLOAT),
        "distance": Column(type=ColumnType.FLOAT),
        "carrier": Column(type=ColumnType.STRING, nullable=True),
        "late": Column(type=ColumnType.BOOL),
    },
)
ROWS = 3000


def month(number: int, rows: int = ROWS) -> pa.Table:
    """A month of readings that goes with the seasons: 30 degrees in winter, 75 in summer."""
    generator = np.random.default_rng(number)
    mean = 52 - 23 * np.cos(2 * np.pi * (number - 1) / 12)
    temperature = generator.normal(mean, 9, rows)
    return pa.table(
        {
            "id": [f"{number}-{row}" for row in range(rows)],
            "temperature": temperature,
            "dew_point": temperature - generator.gamma(2, 5, rows),
            "rain": np.where(generator.random(rows) < 0.9, 0, generator.gamma(1, 0.1, rows)),
            "distance": generator.choice([200.0, 500, 760, 1400, 2475], rows)
            + generator.integers(0, 30, rows),
            "carrier": generator.choice(list("ABCDE"), rows, p=[0.4, 0.3, 0.15, 0.1, 0.05]),
            "late": generator.random(rows) < 0.1 + 0.02 * (number % 6),
        }
    )


def summary(table: pa.Table, quarantined: int = 0) -> dict[str, TableSummary]:
    return {"readings": summarise(table, DECLARED, quarantined=quarantined)}


HISTORY = {f"m{n}": summary(month(n)) for n in (4, 5, 6)}


def found(table, *, history=HISTORY, quarantined=0, declared=DECLARED, **given) -> FaultReport:
    return find_faults(
        "m7",
        summary(table, quarantined),
        history,
        {"readings": declared},
        max_quarantine_share=0.01,
        **given,
    )


def kinds(report):
    return {(fault.kind, fault.column) for fault in report.faults}


def changed(table, column, values):
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, pa.chunked_array([values]))


def test_a_year_of_clean_months_raises_no_alarm():
    for number in range(2, 25):
        earlier = [n for n in (number - 3, number - 2, number - 1) if n > 0]
        history = {f"m{n}": summary(month(n)) for n in earlier}
        assert found(month(number), history=history).faults == ()


def test_a_window_that_did_not_come_makes_no_fault_of_the_next_one():
    for number in range(5, 25):
        back = {f"m{number - n}": n for n in (4, 3, 2)}
        history = {key: summary(month(number - n)) for key, n in back.items()}
        assert found(month(number), history=history, back=back).faults == ()
    back = {"m4": 4, "m5": 3, "m6": 2}
    kilometres = pc.multiply(month(8)["distance"], 1.609344).combine_chunks()
    broken = found(changed(month(8), "distance", kilometres), back=back)
    assert kinds(broken) == {(FaultKind.UNIT, "distance")}


def test_what_becomes_known_later_is_judged_when_the_labels_are_complete():
    known_at = Column(type=ColumnType.TIMESTAMP)
    columns = DECLARED.columns | {
        "rain": Column(type=ColumnType.FLOAT, nullable=True, known_at="read_at"),
        "at": known_at,
        "read_at": known_at,
    }
    declared = DECLARED.model_copy(update={"columns": columns, "timestamp": "at"})
    unread = changed(month(7), "rain", pa.nulls(ROWS, pa.float64()))
    assert found(unread, declared=declared, incomplete=True).faults == ()
    assert kinds(found(unread, declared=declared)) == {(FaultKind.MISSING, "rain")}
    empty = changed(month(7), "carrier", pa.nulls(ROWS, pa.string()))
    assert kinds(found(empty, declared=declared, incomplete=True)) == {
        (FaultKind.MISSING, "carrier")
    }


NUMBERS = month(7)["temperature"].to_numpy()
FAULTS = {
    "celsius": ("temperature", pa.array((NUMBERS - 32) / 1.8), (FaultKind.UNIT, "temperature")),
    "kilometres": (
        "distance",
        pc.multiply(month(7)["distance"], 1.609344).combine_chunks(),
        (FaultKind.UNIT, "distance"),
    ),
    "shifted": (
        "dew_point",
        pa.array(np.roll(month(7)["dew_point"].to_numpy(), 1)),
        (FaultKind.RELATION, "dew_point"),
    ),
    "all null": ("temperature", pa.nulls(ROWS, pa.float64()), (FaultKind.MISSING, "temperature")),
    "all null text": ("carrier", pa.nulls(ROWS, pa.string()), (FaultKind.MISSING, "carrier")),
    "constant": ("temperature", pa.array(np.full(ROWS, 60.0)), (FaultKind.CONSTANT, "temperature")),
    "unseen": (
        "carrier",
        pc.utf8_lower(month(7)["carrier"]).combine_chunks(),
        (FaultKind.UNSEEN, "carrier"),
    ),
    "garbage": ("dew_point", pa.array(np.full(ROWS, 9999.0)), (FaultKind.CONSTANT, "dew_point")),
    "level": (
        "dew_point",
        pc.add(month(7)["dew_point"], 7e6).combine_chunks(),
        (FaultKind.LEVEL, "dew_point"),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_named(fault):
    column, values, expected = FAULTS[fault]
    report = found(changed(month(7), column, values))
    assert expected in kinds(report)
    assert column in next(f for f in report.faults if f.column == expected[1]).reason
    assert FaultReport.model_validate_json(report.model_dump_json()) == report


@pytest.mark.parametrize("conversion", sorted(CONVERSIONS))
def test_a_column_that_hardly_changes_must_come_in_its_unit(conversion):
    scale, shift = CONVERSIONS[conversion]
    delivered = (month(7)["distance"].to_numpy() - shift) / scale
    report = found(changed(month(7), "distance", pa.array(delivered)))
    expected = set() if scale == 1 else {"distance"}
    assert {fault.column for fault in report.faults} == expected


def test_rows_that_are_missing_or_repeated_or_bad_are_found():
    table = month(7)
    assert kinds(found(table.slice(0, ROWS // 2))) == {(FaultKind.ROWS, "")}
    again = table.slice(0, ROWS // 3)
    renamed = changed(again, "id", pa.array([f"again-{n}" for n in range(again.num_rows)]))
    assert kinds(found(pa.concat_tables([table, renamed]))) == {(FaultKind.REPEATED, "")}
    assert kinds(found(table, quarantined=20)) == {(FaultKind.QUARANTINE, "")}
    assert found(table, quarantined=10).faults == ()


def test_what_is_exempt_is_not_looked_at():
    column, values, _ = FAULTS["celsius"]
    table = changed(month(7), column, values)
    assert found(table, exempt=("readings.temperature",)).faults == ()
    assert found(table.slice(0, 100), exempt=("readings.rows",)).faults == ()


@pytest.mark.parametrize("rows", [0, 1, 3, 199])
def test_a_handful_of_rows_is_too_few_to_call_its_values_faulty(rows):
    table = changed(month(7), "temperature", pa.array(np.full(ROWS, 9999.0))).slice(0, rows)
    assert {kind for kind, _ in kinds(found(table))} == {FaultKind.ROWS}
    few = {"m6": summary(month(6, rows))}
    assert found(table, history=few).faults == ()


def test_the_first_window_has_nothing_to_be_compared_with():
    report = found(month(7), history={})
    assert report.faults == ()
    assert report.compared_with == ()
