"""The outbox: an alert and the note to tell it are written together, or neither is.

Whoever raises an alert waits for no web server and no mail server: `delivery` sends. The same key
is told once per output while it is open, however often it is raised.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from aios_platform.contracts.alerts import Alert, RaisedAlert, short_key
from aios_platform.database import Database
from aios_platform.errors import AlertError, DatabaseUnavailable
from aios_platform.settings import settings

logger = logging.getLogger(__name__)

BY_ITSELF = "platform"

_RAISE = """
INSERT INTO alert
    (key, kind, subject, severity, summary, evidence, ledger_row, raised_at, newest_at)
VALUES (:key, :kind, :subject, :severity, :summary, CAST(:evidence AS jsonb), :ledger_row,
    :raised_at, :raised_at)
ON CONFLICT (key) WHERE resolved_at IS NULL DO UPDATE SET
    count = alert.count + 1,
    last_seen = clock_timestamp(),
    severity = CASE WHEN excluded.severity = 'critical' THEN 'critical' ELSE alert.severity END,
    (summary, evidence, ledger_row, newest_at) = (
        SELECT excluded.summary, excluded.evidence, excluded.ledger_row, excluded.newest_at
        WHERE excluded.newest_at >= alert.newest_at
        UNION ALL SELECT alert.summary, alert.evidence, alert.ledger_row, alert.newest_at
        WHERE excluded.newest_at < alert.newest_at)
RETURNING id, count = 1 AS inserted
"""
_TELL = """
INSERT INTO alert_delivery (alert_id, output) SELECT :id, unnest(CAST(:outputs AS text[]))
ON CONFLICT DO NOTHING RETURNING output
"""
COLUMNS = (
    "id, key, kind, subject, severity, summary, evidence, ledger_row, raised_at, count, "
    "first_seen, last_seen, resolved_at, resolved_by, resolution"
)


def raise_alert(database: Database, alert: Alert, *, deliver: bool = True) -> bool:
    """Raise an alert; while its key is open, raising it again only counts.

    Args:
        database: Where the alerts are.
        alert: What to tell.
        deliver: False records it and tells nobody: for a replay of the past.

    Returns:
        Whether it is news: the key was not open, or an output was not told of it yet.

    Raises:
        DatabaseUnavailable: It could not be written.
    """
    with database.begin() as connection:
        return raise_within(connection, alert, deliver=deliver)


def raise_within(connection: Connection, alert: Alert, *, deliver: bool = True) -> bool:
    """`raise_alert` inside the caller's transaction: with what it tells of, or not at all.

    The key is locked until that transaction ends: raise late.
    """
    row = connection.execute(
        text(_RAISE),
        {
            **alert.model_dump(mode="json", exclude={"evidence", "raised_at"}),
            "evidence": json.dumps(alert.evidence),
            "raised_at": alert.raised_at,
        },
    ).one()
    if not deliver:
        return bool(row.inserted)
    # Also where the key was open: a replay told nobody, and an output may be new.
    told = connection.execute(
        text(_TELL), {"id": row.id, "outputs": list(settings().alert_outputs)}
    ).all()
    return bool(row.inserted or told)


def try_raise(database: Database, alert: Alert, *, deliver: bool = True) -> bool:
    """`raise_alert` for callers whose own work must go on: an outage is logged, not raised."""
    try:
        return raise_alert(database, alert, deliver=deliver)
    except DatabaseUnavailable as error:
        logger.error("Alert not recorded: %s: %s (%s)", alert.subject, alert.summary, error)
        return False


def resolve(
    database: Database, key: str, *, by: str = BY_ITSELF, reason: str = "the cause is gone"
) -> bool:
    """Close the open occurrence of a key; the next raising is a new one, and told again.

    What was raised and not yet told is still told.

    Args:
        database: Where the alerts are.
        key: The key of the alert.
        by: Principal, or the platform itself.
        reason: Why, for whoever reads it later.

    Returns:
        Whether it was open.

    Raises:
        DatabaseUnavailable: It could not be written.
    """
    with database.begin() as connection:
        return resolve_within(connection, key, by=by, reason=reason)


def resolve_within(
    connection: Connection, key: str, *, by: str = BY_ITSELF, reason: str = "the cause is gone"
) -> bool:
    """`resolve` inside the caller's transaction."""
    done = connection.execute(
        text(
            "UPDATE alert SET resolved_at = clock_timestamp(), resolved_by = :by, "
            "resolution = :reason WHERE key = :key AND resolved_at IS NULL"
        ),
        {"key": short_key(key), "by": by, "reason": reason},
    )
    return bool(done.rowcount)


def resolve_one(database: Database, number: int, *, by: str, reason: str) -> RaisedAlert:
    """Close one occurrence by its number; closing it twice is the same as once.

    Raises:
        AlertError: There is none of this number, or the reason is empty.
        DatabaseUnavailable: It could not be written.
    """
    if not reason.strip():
        raise AlertError(
            f"Alert {number} was not resolved: no reason given.", remedy="Say why in a sentence."
        )
    with database.begin() as connection:
        connection.execute(
            text(
                "UPDATE alert SET resolved_at = clock_timestamp(), resolved_by = :by, "
                "resolution = :reason WHERE id = :id AND resolved_at IS NULL"
            ),
            {"id": number, "by": by, "reason": reason.strip()},
        )
    return alert_of(database, number)


def alert_of(database: Database, number: int) -> RaisedAlert:
    """One occurrence.

    Raises:
        AlertError: There is none of this number.
        DatabaseUnavailable: The alerts cannot be read.
    """
    with database.begin() as connection:
        row = (
            connection.execute(
                text(f"SELECT {COLUMNS} FROM alert WHERE id = :id"),  # noqa: S608
                {"id": number},
            )
            .mappings()
            .one_or_none()
        )
    if row is None:
        raise AlertError(
            f"There is no alert {number}.", remedy="`aios alerts list --all` shows their numbers."
        )
    return raised(row)


def alerts(
    database: Database,
    *,
    subject: str | None = None,
    open_only: bool = False,
    limit: int = 100,
) -> list[RaisedAlert]:
    """Occurrences, newest first.

    Raises:
        DatabaseUnavailable: The alerts cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(
            text(
                f"SELECT {COLUMNS} FROM alert "  # noqa: S608
                "WHERE (CAST(:subject AS text) IS NULL OR subject = :subject) "
                "AND (NOT :open_only OR resolved_at IS NULL) ORDER BY id DESC LIMIT :limit"
            ),
            {"subject": subject, "open_only": open_only, "limit": limit},
        ).mappings()
        return [raised(row) for row in rows]


def raised(row: Mapping[Any, Any]) -> RaisedAlert:
    """The record of a row of the table."""
    inner = {name: row[name] for name in Alert.model_fields}
    outer = {name: row[name] for name in RaisedAlert.model_fields if name != "alert"}
    return RaisedAlert(alert=Alert(**inner), **outer)
