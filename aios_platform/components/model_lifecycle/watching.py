"""The minute's look at MLflow's alias, told in Dagster's pages: each alarm once.

The row in the ledger is the alarm; the check `alias_in_step` shows it. A look that died after the
row and before its check is made up for by the next one, which finds the row and no check.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.components.model_lifecycle.alarms import calm
from aios_platform.components.model_lifecycle.alias import (
    AliasReport,
    AliasState,
    alarm_row,
    look,
    report_of,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.promotion import ALIAS_IN_STEP, alias_evaluation
from aios_platform.contracts.alerts import AlertKind
from aios_platform.database import Database

if TYPE_CHECKING:
    from aios_platform.ledger.entries import LedgerEntry
    from aios_platform.registry.store import ModelRegistry

ROW = "ledger_row"


def watch_alias(
    names: Names,
    instance: dg.DagsterInstance,
    database: Database,
    open_registry: "Callable[[], ModelRegistry]",
    cursor: str | None,
) -> dg.SensorResult | dg.SkipReason:
    """Reconcile the alias, and say what is new since the last look that was told.

    Args:
        names: The model.
        instance: Where the check is told.
        database: Where the ledger lives.
        open_registry: Opens the MLflow registry, which takes seconds the first time.
        cursor: What the last look told: the alias's state, and the number of the last alarm.

    Raises:
        DatabaseUnavailable: The ledger or MLflow does not answer.
    """
    state, _, number = (cursor or "").partition(" ")
    before = alarm_row(database, names.model)
    told = int(number) if number else (_number(before) if state else 0)
    report = look(names.model, database, open_registry)
    row = alarm_row(database, names.model)
    if row is not None and row.seq > told:
        told_by_a_look_that_died = _told(names, instance) == row.seq
        alarm = report_of(row)
        return dg.SensorResult(
            asset_events=[] if told_by_a_look_that_died else [_evaluation(names, alarm, row)],
            cursor=f"{alarm.state} {row.seq}",
        )
    if report.champion is None or str(report.state) == state:
        return dg.SkipReason(report.message)
    if state == AliasState.MISSING and row is not None:
        calm(
            database,
            names.model,
            AlertKind.CHAMPION_MISSING,
            str(row.payload["revision"]),
            report.message,
        )
    # Only a change is an event: a minute's look that finds nothing new is not.
    return dg.SensorResult(
        asset_events=[alias_evaluation(names, report)], cursor=f"{report.state} {_number(row)}"
    )


def _number(row: "LedgerEntry | None") -> int:
    return row.seq if row is not None else 0


def _evaluation(names: Names, alarm: AliasReport, row: "LedgerEntry") -> dg.AssetCheckEvaluation:
    made = alias_evaluation(names, alarm)
    return dg.AssetCheckEvaluation(
        asset_key=made.asset_key,
        check_name=made.check_name,
        passed=made.passed,
        severity=made.severity,
        metadata={**made.metadata, ROW: row.seq},
    )


def _told(names: Names, instance: dg.DagsterInstance) -> int | None:
    """The alarm that the check was last told of, if it was one."""
    record = instance.get_latest_asset_check_evaluation_record(
        dg.AssetCheckKey(names.asset("champion"), ALIAS_IN_STEP)
    )
    if record is None or record.event is None or record.event.dagster_event is None:
        return None
    found = record.event.dagster_event.asset_check_evaluation_data.metadata.get(ROW)
    return int(str(found.value)) if found is not None else None
