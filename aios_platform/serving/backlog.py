"""What a person asks of the Postgres queue: how much waits, what died and why, and try it again."""

from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import text

from aios_platform.alerts.outbox import BY_ITSELF, resolve_within
from aios_platform.contracts.record import Record
from aios_platform.database import Database
from aios_platform.serving.postgres_queue import alert_key

_STATE = """
SELECT
    (SELECT count(*) FROM inference_request WHERE model = :model AND available_at <= now())
        AS waiting,
    (SELECT count(*) FROM inference_request WHERE model = :model AND available_at > now())
        AS later,
    (SELECT count(*) FROM inference_result WHERE model = :model) AS scored,
    (SELECT count(*) FROM inference_dead_letter WHERE model = :model) AS dead,
    (SELECT min(enqueued_at) FROM inference_request WHERE model = :model) AS oldest
"""
_RETRY = """
WITH back AS (
    DELETE FROM inference_dead_letter
    WHERE model = :model AND (CAST(:keys AS text[]) IS NULL OR key = ANY(:keys))
    RETURNING model, key, body
)
INSERT INTO inference_request (model, key, body) SELECT model, key, body FROM back
"""


class QueueState(Record):
    """How a model's queue stands."""

    waiting: int = Field(description="Messages that are due.")
    later: int = Field(description="Messages that a worker holds, or that wait to be tried again.")
    scored: int = Field(description="Results that are kept.")
    dead: int = Field(description="Dead letters.")
    oldest: datetime | None = Field(description="When the oldest message was put.")


class DeadLetter(Record):
    """A message that was given up, without its body."""

    id: int
    key: str
    attempts: int
    error: str
    enqueued_at: datetime
    died_at: datetime


class Result(Record):
    """What came of a message."""

    key: str
    version: str
    answer: dict[str, Any]
    scored_at: datetime


def state_of(database: Database, model: str) -> QueueState:
    """How a model's queue stands.

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    with database.begin() as connection:
        return QueueState(**connection.execute(text(_STATE), {"model": model}).mappings().one())


def result_of(database: Database, model: str, key: str) -> Result | None:
    """What came of the message of a key; None where it has no result (yet).

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    with database.begin() as connection:
        row = connection.execute(
            text(
                "SELECT key, version, answer, scored_at FROM inference_result "
                "WHERE model = :model AND key = :key"
            ),
            {"model": model, "key": key},
        ).mappings()
        found = row.one_or_none()
    return Result(**found) if found is not None else None


def dead_letters(database: Database, model: str, *, limit: int = 100) -> list[DeadLetter]:
    """A model's dead letters, newest first.

    Raises:
        DatabaseUnavailable: They cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT id, key, attempts, error, enqueued_at, died_at "
                "FROM inference_dead_letter WHERE model = :model ORDER BY id DESC LIMIT :limit"
            ),
            {"model": model, "limit": limit},
        ).mappings()
        return [DeadLetter(**row) for row in rows]


def retry(
    database: Database, model: str, keys: list[str] | None = None, *, by: str = BY_ITSELF
) -> int:
    """Put dead letters back into the queue, as if they were new.

    Args:
        database: Where the queue is.
        model: Whose dead letters.
        keys: Only these; default, all.
        by: Principal that closes the alert, when no dead letter is left.

    Returns:
        How many were put back.

    Raises:
        DatabaseUnavailable: None was.
    """
    with database.begin() as connection:
        back = connection.execute(text(_RETRY), {"model": model, "keys": keys}).rowcount
        left = connection.execute(
            text("SELECT EXISTS (SELECT FROM inference_dead_letter WHERE model = :model)"),
            {"model": model},
        ).scalar_one()
        if not left:
            resolve_within(
                connection, alert_key(model), by=by, reason="the dead letters were put back"
            )
    return back
