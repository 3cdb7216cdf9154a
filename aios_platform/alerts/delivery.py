"""From the outbox to the outputs: grouped, retried, at least once with a stable id.

What is due is first composed into messages, whose id and content are fixed from then on; then each
is sent under a lock on its row, and recorded. A process that is killed between sending and
recording loses the lock and leaves the message pending: the next attempt repeats it with the same
id. Several deliverers never send one message at the same time.
"""

import json
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from threading import Thread
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from aios_platform.alerts.outbox import COLUMNS, raised
from aios_platform.contracts.alerts import AlertBatch, Severity
from aios_platform.contracts.record import Record
from aios_platform.database import Database
from aios_platform.errors import AlertError, fault_of

if TYPE_CHECKING:
    from aios_platform.alerts.outputs import AlertOutput

logger = logging.getLogger(__name__)

FIRST_RETRY = timedelta(seconds=30)
LONGEST_RETRY = timedelta(hours=1)
# Seven waits that double, then hourly: three days in all.
MOST_ATTEMPTS = 79
MOST_IN_MESSAGE = 20
MOST_COMPOSED = 1_000
# One look of a sensor has a minute.
PASS_SECONDS = 25.0
SEND_SECONDS = 25.0
# An output that is down does not use up the time of the others.
MOST_FAILURES = 3
CLOCK_SLACK = timedelta(minutes=10)

_DUE = (
    "state = 'pending' AND output = ANY(:outputs) "
    # After the machine's clock went back, a time that far ahead is none that we set by it.
    "AND (next_attempt_at <= :now OR next_attempt_at > :too_far)"
)
_UNCOMPOSED = f"""
SELECT output, {COLUMNS} FROM alert_delivery JOIN alert ON alert.id = alert_id
WHERE message_id IS NULL AND output = ANY(:outputs)
ORDER BY alert.id LIMIT :limit FOR UPDATE OF alert_delivery SKIP LOCKED
"""  # noqa: S608
_NEXT = f"""
SELECT id, output, subject, content, composed_at, attempts FROM alert_message WHERE {_DUE}
ORDER BY critical DESC, next_attempt_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
"""  # noqa: S608


@dataclass
class DeliveryReport:
    """What one pass came to.

    Attributes:
        sent: Messages that were taken.
        failed: Messages that were not, and will be sent again.
        undeliverable: Messages that were given up.
        failures: Why, one sentence each.
    """

    sent: int = 0
    failed: int = 0
    undeliverable: int = 0
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In one line."""
        return (
            f"Messages sent: {self.sent}, to be sent again: {self.failed}, "
            f"given up: {self.undeliverable}."
        )


class Told(Record):
    """Whether one output was told of an alert."""

    output: str
    state: str
    attempts: int = 0
    next_attempt_at: datetime | None = None
    message_id: str | None = None
    error: str | None = None


def retry_after(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts."""
    doublings = min(attempts - 1, 20)
    return min(FIRST_RETRY * 2.0**doublings, LONGEST_RETRY)


def anything_due(database: Database, outputs: Sequence[str], now: datetime) -> bool:
    """Whether `deliver_due` would send something.

    Raises:
        DatabaseUnavailable: The outbox cannot be read.
    """
    with database.begin() as connection:
        return bool(
            connection.execute(
                text(
                    "SELECT EXISTS (SELECT FROM alert_delivery WHERE message_id IS NULL "  # noqa: S608
                    "AND output = ANY(:outputs)) "
                    f"OR EXISTS (SELECT FROM alert_message WHERE {_DUE})"
                ),
                _moment(outputs, now),
            ).scalar_one()
        )


def deliver_due(
    database: Database, outputs: Sequence["AlertOutput"], now: datetime
) -> DeliveryReport:
    """Send what is due; an output that fails is tried again later, ever less often.

    Args:
        database: Where the outbox is.
        outputs: Where to; what is for others waits for them.
        now: The machine's clock, aware.

    Raises:
        DatabaseUnavailable: The outbox cannot be read or written. What was sent and not recorded
            is sent again, with the same id.
    """
    report = DeliveryReport()
    by_name = {output.name: output for output in outputs}
    failures = dict.fromkeys(by_name, 0)
    with database.begin() as connection:
        _compose(connection, list(by_name), now)
    begin = time.monotonic()
    while time.monotonic() - begin < PASS_SECONDS:
        names = [name for name, count in failures.items() if count < MOST_FAILURES]
        with database.begin() as connection:
            row = connection.execute(text(_NEXT), _moment(names, now)).one_or_none()
            if row is None:
                break
            output = by_name[row.output]
            error = _attempt(output, _batch(row))
            failures[output.name] += error is not None
            _record(connection, row, error, now, report)
    return report


def _compose(connection: Connection, names: list[str], now: datetime) -> None:
    # Two at a time would tear the alerts of one subject apart.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('compose alerts', 0))"))
    rows = connection.execute(text(_UNCOMPOSED), {"outputs": names, "limit": MOST_COMPOSED})
    found = [(row["output"], raised(row)) for row in rows.mappings()]
    # Critical ones first, also where a group is too long for one message.
    found.sort(
        key=lambda pair: (
            pair[0],
            pair[1].alert.subject,
            pair[1].alert.severity is not Severity.CRITICAL,
            pair[1].id,
        )
    )
    for (output, subject), group in groupby(found, lambda pair: (pair[0], pair[1].alert.subject)):
        alerts = [alert for _, alert in group]
        for start in range(0, len(alerts), MOST_IN_MESSAGE):
            part = alerts[start : start + MOST_IN_MESSAGE]
            message = f"msg_{uuid.uuid4().hex}"
            connection.execute(
                text(
                    "INSERT INTO alert_message "
                    "(id, output, subject, critical, content, composed_at, next_attempt_at) "
                    "VALUES (:id, :output, :subject, :critical, CAST(:content AS jsonb), :now, "
                    ":due)"
                ),
                {
                    "id": message,
                    "output": output,
                    "subject": subject,
                    "critical": part[0].alert.severity is Severity.CRITICAL,
                    "content": json.dumps([alert.model_dump(mode="json") for alert in part]),
                    "now": now,
                    # At once, also for a deliverer whose clock is a little behind.
                    "due": now - CLOCK_SLACK,
                },
            )
            connection.execute(
                text(
                    "UPDATE alert_delivery SET message_id = :id "
                    "WHERE output = :output AND alert_id = ANY(:alerts)"
                ),
                {"id": message, "output": output, "alerts": [alert.id for alert in part]},
            )


def _batch(row: Any) -> AlertBatch:
    return AlertBatch(
        id=row.id, subject=row.subject, composed_at=row.composed_at, alerts=tuple(row.content)
    )


def _attempt(output: "AlertOutput", batch: AlertBatch) -> str | None:
    """Send; what went wrong, in a sentence."""
    wrong: list[str] = []

    def work() -> None:
        try:
            output.send(batch)
        except AlertError as error:
            wrong.append(error.what)
        except Exception as error:
            # A fault of the output's own must not stop the others.
            wrong.append(f"{fault_of(error)}.")

    # Timeouts of sockets begin anew with each byte; whoever drips would hold us for ever.
    thread = Thread(target=work, name=f"alerts to {output.name}", daemon=True)
    thread.start()
    thread.join(SEND_SECONDS)
    if thread.is_alive():
        return f"The output {output.name} did not end within {SEND_SECONDS:.0f} s."
    return wrong[0] if wrong else None


def _record(
    connection: Connection, row: Any, error: str | None, now: datetime, report: DeliveryReport
) -> None:
    attempts = row.attempts + 1
    if error is None:
        state = "sent"
        report.sent += 1
    elif attempts < MOST_ATTEMPTS:
        state = "pending"
        report.failed += 1
        logger.warning("Alerts of %s will be sent again: %s", row.subject, error)
    else:
        state = "undeliverable"
        report.undeliverable += 1
        logger.error(
            "Alerts of %s were given up for the output %s after %d attempts (message %s): %s",
            row.subject, row.output, attempts, row.id, error,
        )  # fmt: skip
    if error is not None:
        report.failures = (*report.failures, error)
    connection.execute(
        text(
            "UPDATE alert_message SET state = :state, attempts = :attempts, error = :error, "
            "ended_at = :ended, next_attempt_at = :next WHERE id = :id"
        ),
        {
            "id": row.id,
            "state": state,
            "attempts": attempts,
            "error": error,
            "ended": None if state == "pending" else now,
            "next": now + retry_after(attempts),
        },
    )


def told(database: Database, alert_id: int) -> list[Told]:
    """Which outputs were told of an alert, and which not yet.

    Raises:
        DatabaseUnavailable: The outbox cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT alert_delivery.output, coalesce(state, 'pending') AS state, "
                "coalesce(attempts, 0) AS attempts, message_id, error, "
                "CASE WHEN state = 'pending' THEN next_attempt_at END AS next_attempt_at "
                "FROM alert_delivery LEFT JOIN alert_message ON alert_message.id = message_id "
                "WHERE alert_id = :id ORDER BY alert_delivery.output"
            ),
            {"id": alert_id},
        ).mappings()
        return [Told(**row) for row in rows]


def _moment(outputs: Sequence[str], now: datetime) -> dict[str, Any]:
    return {
        "outputs": list(outputs),
        "now": now,
        "too_far": now + LONGEST_RETRY + CLOCK_SLACK,
    }
