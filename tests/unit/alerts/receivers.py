"""What the tests of alerts send, and who receives it."""

from datetime import UTC, datetime
from typing import Any

from aios_platform.contracts.alerts import Alert, AlertKind, Severity


def an_alert(**changes: Any) -> Alert:
    made = {
        "kind": AlertKind.DATA_FAULT,
        "subject": "m",
        "key": "k",
        "severity": Severity.WARNING,
        "summary": "Half of the rows are missing.",
        "raised_at": datetime.now(UTC),
    }
    return Alert(**(made | changes))
