"""Deletes what was kept long enough: records of served traffic, and alerts that are resolved.

Nothing goes that something still rests on. Served rows of a window stay until there is a decision
on it; what an open rollout is judged by stays; an alert stays while it is open or has a message
that was not sent. Ledger, claims and queues are never touched.
"""

from collections.abc import Mapping
from datetime import datetime

from pydantic import Field
from sqlalchemy import text

from aios_platform.contracts.record import Record
from aios_platform.contracts.rollouts import OPEN
from aios_platform.contracts.windows import WindowSchedule
from aios_platform.database import Database

# Rows per transaction, and transactions per table and call: writers never wait for long.
BATCH = 2_000
MOST_BATCHES = 25

# Since when an open rollout has been judged; of no other model's rows.
_OPEN = """
SELECT subject AS model, payload -> 'rollout' AS rollout FROM (
    SELECT DISTINCT ON (subject) subject, payload FROM ledger
    WHERE kind = 'rollout' ORDER BY subject, seq DESC
) AS newest WHERE payload -> 'rollout' ->> 'state' = ANY (:open)
"""
_DELETE = {
    "served_batch": """
DELETE FROM served_batch WHERE id IN (
    SELECT id FROM served_batch WHERE model = :model AND last_served < :before
        AND last_predicted < LEAST(:before, :undecided)
    ORDER BY id LIMIT :batch)
""",
    "serving_minute": f"""
DELETE FROM serving_minute AS old USING (
    SELECT m.model, m.minute, m.version, m.role FROM serving_minute AS m
    LEFT JOIN ({_OPEN}) AS standing USING (model)
    WHERE m.minute < :before AND (rollout IS NULL OR m.minute
        < date_trunc('minute', CAST(rollout ->> 'started_at' AS timestamptz)))
    LIMIT :batch) AS gone
WHERE (old.model, old.minute, old.version, old.role)
    = (gone.model, gone.minute, gone.version, gone.role)
""",  # noqa: S608
    "shadow_pair": f"""
DELETE FROM shadow_pair WHERE id IN (
    SELECT id FROM shadow_pair AS pair LEFT JOIN ({_OPEN}) AS standing USING (model)
    WHERE served_at < :before
        AND CAST(standing.rollout ->> 'number' AS int) IS DISTINCT FROM pair.rollout
    ORDER BY id LIMIT :batch)
""",  # noqa: S608
    "alert": """
DELETE FROM alert WHERE id IN (
    SELECT id FROM alert WHERE resolved_at < :before AND NOT EXISTS (
        SELECT 1 FROM alert_delivery LEFT JOIN alert_message ON alert_message.id = message_id
        WHERE alert_id = alert.id AND (message_id IS NULL OR state = 'pending'))
    ORDER BY id LIMIT :batch)
""",
    # A message may tell of several alerts.
    "alert_message": """
DELETE FROM alert_message WHERE id IN (
    SELECT id FROM alert_message AS message WHERE state <> 'pending' AND ended_at < :before
        AND NOT EXISTS (SELECT 1 FROM alert_delivery WHERE message_id = message.id)
    LIMIT :batch)
""",
}
SERVED = "served_batch"


class Pruned(Record):
    """What was deleted."""

    rows: dict[str, int] = Field(description="Rows by table.")
    more: bool = Field(description="Whether there is more, for the next time.")


def undecided_since(
    database: Database, model: str, schedule: WindowSchedule, now: datetime
) -> datetime:
    """Start of the first window with served rows and without a decision; `now` where all have one.

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    with database.begin() as connection:
        first = connection.execute(
            text("SELECT min(first_predicted) FROM served_batch WHERE model = :model"),
            {"model": model},
        ).scalar()
        decided = set(
            connection.execute(
                text(
                    "SELECT DISTINCT payload -> 'decision' ->> 'window' FROM ledger "
                    "WHERE subject = :model AND kind = 'retrain_decision'"
                ),
                {"model": model},
            ).scalars()
        )
    if first is None:
        return now
    return next(
        (w.start for w in schedule.windows(now) if w.end > first and w.key not in decided), now
    )


def prune(database: Database, before: datetime, undecided: Mapping[str, datetime]) -> Pruned:
    """Delete what is older and rests in nobody's hands; what is left is deleted by the next call.

    Args:
        database: Where all of it is.
        before: What was served, or resolved, later stays; aware.
        undecided: Per model, `undecided_since`. Served rows of other models stay.

    Raises:
        DatabaseUnavailable: Postgres does not answer; what was deleted is deleted.
    """
    rows, more = dict.fromkeys(_DELETE, 0), False
    for table, statement in _DELETE.items():
        common = {"before": before, "batch": BATCH, "open": [str(state) for state in OPEN]}
        named = [
            {**common, "model": model, "undecided": since} for model, since in undecided.items()
        ]
        for values in named if table == SERVED else [common]:
            for _ in range(MOST_BATCHES):
                with database.begin() as connection:
                    gone = connection.execute(text(statement), values).rowcount
                rows[table] += gone
                if gone < BATCH:
                    break
            else:
                more = True
    return Pruned(rows=rows, more=more)
