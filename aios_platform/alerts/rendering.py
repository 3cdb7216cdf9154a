"""An alert for a machine, and for a person."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from aios_platform.contracts.alerts import (
    PLATFORM,
    Alert,
    AlertBatch,
    AlertKind,
    RaisedAlert,
    Severity,
)


def as_payload(batch: AlertBatch) -> dict[str, Any]:
    """What the webhook posts."""
    return {
        "type": "alert.raised",
        "timestamp": batch.composed_at.isoformat(),
        "data": {
            "subject": batch.subject,
            "alerts": [
                {
                    **raised.model_dump(mode="json", exclude={"alert"}),
                    **raised.alert.model_dump(mode="json"),
                    "runbook": raised.alert.runbook,
                }
                for raised in batch.alerts
            ],
        },
    }


def as_text(raised: RaisedAlert) -> str:
    """One alert for a person: what, since when, how often, on what evidence, and what to do."""
    alert = raised.alert
    lines = [
        f"{str(alert.severity).upper()}: {alert.summary}",
        f"  alert     {raised.id}: {alert.kind} of {alert.subject}",
        f"  key       {alert.key}",
        f"  raised    {alert.raised_at:%Y-%m-%d %H:%M %Z}, {raised.count} times, "
        f"last seen {raised.last_seen:%Y-%m-%d %H:%M %Z}",
    ]
    if alert.ledger_row is not None:
        lines.append(f"  ledger    aios ledger show --row {alert.ledger_row}")
    if raised.resolved_at is not None:
        lines.append(f"  resolved  {raised.resolved_at:%Y-%m-%d %H:%M %Z} by {raised.resolved_by}: "
                     f"{raised.resolution}")  # fmt: skip
    lines.append(f"  to do     {alert.runbook}")
    evidence = json.dumps(alert.evidence, indent=2).splitlines()
    lines += ["  evidence  " + evidence[0], *(f"            {line}" for line in evidence[1:])]
    return "\n".join(lines)


def trial_batch() -> AlertBatch:
    """A message that shows that an output works."""
    now = datetime.now(UTC)
    alert = Alert(
        kind=AlertKind.TEST,
        subject=PLATFORM,
        key=str(AlertKind.TEST),
        severity=Severity.WARNING,
        summary="This is a test: nothing is wrong.",
        evidence={"asked_by": "aios alerts test"},
        raised_at=now,
    )
    return AlertBatch(
        id=f"msg_{uuid.uuid4().hex}",
        subject=PLATFORM,
        composed_at=now,
        alerts=(RaisedAlert(id=0, alert=alert, count=1, first_seen=now, last_seen=now),),
    )
