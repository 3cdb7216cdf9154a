"""Alerts about a model: raised with their evidence, taken back when their cause is gone."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from aios_platform.contracts.alerts import Alert, AlertKind, Severity

if TYPE_CHECKING:
    from aios_platform.database import Database

CRITICAL = frozenset(
    {
        AlertKind.BUDGET_SPENT,
        AlertKind.RETRAINING_FAILED,
        AlertKind.PREDICTIONS_LATE,
        AlertKind.CHAMPION_MISSING,
        AlertKind.ROLLED_BACK,
    }
)


def alarm(
    database: "Database",
    model: str,
    kind: AlertKind,
    about: str,
    summary: str,
    *,
    now: datetime,
    past: bool,
    severity: Severity | None = None,
    evidence: dict[str, Any] | None = None,
    ledger_row: int | None = None,
) -> None:
    """Raise an alert about a model; what asked for it goes on, whatever becomes of the alert.

    Args:
        database: Where the alerts are.
        model: Name of the model.
        kind: What happened.
        about: What of the model, e.g. a window; the same again is the same alert.
        summary: One sentence.
        now: The lifecycle's clock, aware.
        past: Whether that clock looks at the past: the alert is then recorded, and told nobody.
        severity: How soon somebody should look; default, as its kind is.
        evidence: Figures and names.
        ledger_row: The row that it rests on.
    """
    from aios_platform.alerts.outbox import try_raise

    alert = Alert(
        kind=kind,
        subject=model,
        key=_key(model, kind, about),
        severity=severity or (Severity.CRITICAL if kind in CRITICAL else Severity.WARNING),
        summary=summary,
        evidence=evidence or {},
        ledger_row=ledger_row,
        raised_at=now,
    )
    try_raise(database, alert, deliver=not past)


def calm(database: "Database", model: str, kind: AlertKind, about: str, reason: str) -> None:
    """Take an alert back whose cause is gone; nothing happens where there is none."""
    from aios_platform.alerts.outbox import resolve
    from aios_platform.errors import DatabaseUnavailable

    try:
        resolve(database, _key(model, kind, about), reason=reason)
    except DatabaseUnavailable:
        # It stays open, and the next look takes it back.
        return


def _key(model: str, kind: AlertKind, about: str) -> str:
    return f"{kind}:{model}:{about}"
