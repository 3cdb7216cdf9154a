"""A served model's error budget: looked at every minute, and told while it is spent too fast."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from sqlalchemy import text

from aios_platform.alerts.outbox import alerts
from aios_platform.components.model_lifecycle.alarms import alarm, calm
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.alerts import AlertKind
from aios_platform.database import Database
from aios_platform.errors import DatabaseUnavailable
from aios_platform.monitoring.error_budget import WINDOWS, Burn, Counts, find_burns
from aios_platform.resources.stores import Ledger

LOOK_SECONDS = 60
# A shadow answers nobody.
_COUNTS = """
SELECT span, CAST(coalesce(sum(requests), 0) AS bigint) AS requests,
    CAST(coalesce(sum(errors), 0) AS bigint) AS errors,
    CAST(coalesce(sum(slow), 0) AS bigint) AS slow
FROM unnest(CAST(:spans AS interval[])) AS span LEFT JOIN serving_minute
    ON model = :model AND role <> 'shadow' AND minute <= :now AND minute > :now - span
GROUP BY span
"""


def served_counts(database: Database, model: str, now: datetime) -> dict[timedelta, Counts]:
    """What callers were answered, per window that the budget is judged by.

    Args:
        database: Where the gateway's figures are.
        model: Name of the model.
        now: End of the windows, aware.

    Raises:
        DatabaseUnavailable: They cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(
            text(_COUNTS), {"spans": list(WINDOWS), "model": model, "now": now}
        ).all()
    return {
        row.span: Counts(requests=row.requests, errors=row.errors, slow=row.slow) for row in rows
    }


def look_at_error_budget(names: Names, database: Database, now: datetime) -> list[Burn]:
    """Budgets that are spent too fast, with an alert for each; the others' alerts are taken back.

    Args:
        names: The model.
        database: Where figures and alerts are.
        now: The clock, aware.

    Raises:
        DatabaseUnavailable: Figures or alerts cannot be read.
    """
    burns = find_burns(served_counts(database, names.model, now), names.declaration.serving.slo)
    burning = {f"{burn.objective}-{burn.rule.severity}": burn for burn in burns}
    for about, burn in burning.items():
        alarm(
            database, names.model, AlertKind.ERROR_BUDGET, about, burn.reason, now=now,
            past=False, severity=burn.rule.severity, evidence=burn.model_dump(mode="json"),
        )  # fmt: skip
    for raised in alerts(database, subject=names.model, open_only=True, limit=1000):
        about = raised.alert.key.rsplit(":", 1)[-1]
        if raised.alert.kind is AlertKind.ERROR_BUDGET and about not in burning:
            calm(database, names.model, AlertKind.ERROR_BUDGET, about, "it is spent slowly again")
    return burns


def error_budget_sensor(names: Names) -> dg.SensorDefinition:
    """`<model>__error_budget`: errors and slow answers of the gateway become an alert."""

    @dg.sensor(
        name=names.job("error_budget"),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus(names.automation),
        description="Holds the gateway's errors and slow answers against serving.slo: an alert "
        "while the error budget is spent too fast.",
    )
    def error_budget(ledger: Ledger) -> dg.SkipReason:
        try:
            burns = look_at_error_budget(names, ledger.open(), datetime.now(UTC))
        except DatabaseUnavailable as error:
            return dg.SkipReason(f"Not looked at: {error}")
        return dg.SkipReason(" ".join(b.reason for b in burns) or "No budget is spent too fast.")

    return error_budget
