"""The queue of inference requests on Postgres.

A message is leased by time, not by the lock of an open transaction. So a message that kills its
worker is counted, no transaction stays open while a model computes, and a worker that hangs holds
nothing for ever. The price: what a killed worker held waits for its lease.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DataError

from aios_platform.alerts.outbox import raise_within
from aios_platform.contracts.alerts import Alert, AlertKind, Severity, one_line
from aios_platform.database import Database
from aios_platform.errors import RequestRefused
from aios_platform.serving.queue import Failed, Fault, Message, Scored, storable

LONGEST_KEY = 200
LONGEST_ERROR = 2_000
LONGEST_BACKOFF_SECONDS = 300.0
UNSETTLED = "its worker ended, or took too long, before the message was settled"
REUSED = "idempotency_key_reused: the key already has a result, of another body"

_DIGEST = "encode(sha256(convert_to(CAST(body AS text), 'UTF8')), 'hex')"
_DUE = """
SELECT id, model, key, CAST(body AS text) AS body, attempts, error FROM inference_request
WHERE model = :model AND available_at <= now()
ORDER BY available_at, id LIMIT :limit FOR UPDATE SKIP LOCKED
"""
_LEASE = """
UPDATE inference_request SET attempts = attempts + 1, error = :unsettled,
    available_at = clock_timestamp() + make_interval(secs => :seconds)
WHERE id = ANY(:ids)
"""
# In the order of their ids, so that two who settle the same messages do not wait in a circle.
_LOCK = "SELECT FROM inference_request WHERE id = ANY(:ids) ORDER BY id FOR UPDATE"
_SCORED = f"""
INSERT INTO inference_result (model, key, version, answer, body_digest)
SELECT model, key, scored.version, scored.answer, {_DIGEST}
FROM jsonb_to_recordset(CAST(:scored AS jsonb)) AS scored (id bigint, version text, answer jsonb)
JOIN inference_request USING (id)
ORDER BY model, key, id
ON CONFLICT (model, key) DO NOTHING
"""  # noqa: S608
_BURIED = "INSERT INTO inference_dead_letter (id, model, key, body, attempts, error, enqueued_at)"
_FINISH = f"""
WITH gone AS (
    DELETE FROM inference_request USING inference_result
    WHERE inference_request.id = ANY(:ids) AND inference_result.model = inference_request.model
        AND inference_result.key = inference_request.key
    RETURNING inference_request.*, inference_result.body_digest
), buried AS (
    {_BURIED}
    SELECT id, model, key, body, attempts, :reused, enqueued_at FROM gone
    WHERE body_digest <> {_DIGEST}
    RETURNING id
)
SELECT gone.id, model, buried.id IS NOT NULL AS died FROM gone LEFT JOIN buried USING (id)
"""  # noqa: S608
_FAILURES = (
    "jsonb_to_recordset(CAST(:failures AS jsonb)) "
    "AS failure (id bigint, attempts integer, why text, seconds float8, counts boolean) "
)
# Only whoever took it last may say that it failed.
_OURS = "message.id = failure.id AND message.attempts = failure.attempts"
_LATER = f"""
UPDATE inference_request AS message SET error = why,
    attempts = message.attempts - CASE WHEN counts THEN 0 ELSE 1 END,
    available_at = clock_timestamp() + make_interval(secs => seconds)
FROM {_FAILURES} WHERE {_OURS}
"""  # noqa: S608
_BURY = f"""
WITH gone AS (
    DELETE FROM inference_request AS message USING {_FAILURES} WHERE {_OURS}
    RETURNING message.*, why
)
{_BURIED}
SELECT id, model, key, body, attempts, why, enqueued_at FROM gone RETURNING model
"""  # noqa: S608


class PostgresQueue:
    """The queue in the tables `inference_request`, `inference_result`, `inference_dead_letter`.

    Args:
        database: Where they are.
        lease_seconds: For how long what was taken is the taker's alone.
        max_attempts: Attempts after which a message is a dead letter.
        backoff_seconds: Wait after the first failed attempt; doubled with each.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float = 30.0,
        max_attempts: int = 5,
        backoff_seconds: float = 5.0,
    ) -> None:
        self._database = database
        self.lease_seconds = lease_seconds
        self._max_attempts = max_attempts
        self._backoff_seconds = backoff_seconds

    def put(self, model: str, key: str, body: Mapping[str, Any]) -> None:
        """Add a message.

        The same key again has no second effect; with another body it becomes a dead letter.

        Raises:
            RequestRefused: The key or the body cannot be stored.
            DatabaseUnavailable: It was not stored, or that is not known: put it again.
        """
        if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            raise RequestRefused(
                f"The key of a message for {model} has {len(key)} characters, or unprintable ones.",
                remedy=f"Use 1 to {LONGEST_KEY} printable characters.",
            )
        try:
            with self._database.begin() as connection:
                connection.execute(
                    text(
                        "INSERT INTO inference_request (model, key, body) "
                        "VALUES (:model, :key, CAST(:body AS jsonb))"
                    ),
                    {"model": model, "key": key, "body": storable(dict(body))},
                )
        except (DataError, TypeError, ValueError, RecursionError) as error:
            raise RequestRefused(
                f"The body of the message '{key}' for {model} is no JSON object that Postgres can "
                f"hold ({type(error).__name__}).",
                remedy="Leave out NaN, infinities, NUL characters and lone surrogates.",
            ) from None

    def take(self, model: str, limit: int) -> list[Message]:
        """Lease up to `limit` messages that are due, the longest waiting first.

        A message whose worker ended while it held it is taken alone: if it is what ended the
        worker, it does not wear out the attempts of others.

        Raises:
            DatabaseUnavailable: They could not be leased. What was leased without our knowing comes
                back after its lease.
        """
        with self._database.begin() as connection:
            left: list[Any] = []
            while not left:
                due = connection.execute(text(_DUE), {"model": model, "limit": limit}).all()
                if not due:
                    return []
                finished = _finish(connection, [row.id for row in due])
                worn = [row for row in due if row.attempts >= self._max_attempts]
                _bury(connection, [_failure(row, row.error or UNSETTLED) for row in worn])
                gone = finished | {row.id for row in worn}
                left = [row for row in due if row.id not in gone]
            chosen = [row for row in left if row.error == UNSETTLED][:1] or left
            connection.execute(
                text(_LEASE),
                {
                    "ids": [row.id for row in chosen],
                    "unsettled": UNSETTLED,
                    "seconds": self.lease_seconds,
                },
            )
        return [
            Message(row.id, row.model, row.key, row.body.encode(), row.attempts + 1)
            for row in chosen
        ]

    def settle(self, outcomes: Sequence[Scored | Failed]) -> None:
        """Write results and failures in one transaction.

        The first result of a key stays. A failure counts only from whoever took the message last.

        Raises:
            DatabaseUnavailable: Nothing was written, or that is not known: settle them again.
        """
        scored = [one for one in outcomes if isinstance(one, Scored)]
        failed = [one for one in outcomes if isinstance(one, Failed)]
        ids = [one.message.id for one in outcomes]
        with self._database.begin() as connection:
            connection.execute(text(_LOCK), {"ids": ids})
            if scored:
                connection.execute(text(_SCORED), {"scored": f"[{','.join(map(_result, scored))}]"})
            _finish(connection, ids)
            later = [self._later(one) for one in failed if not self._dies(one)]
            if later:
                connection.execute(text(_LATER), {"failures": json.dumps(later)})
            dead = [_failure(one.message, one.error) for one in failed if self._dies(one)]
            _bury(connection, dead)

    def _dies(self, failed: Failed) -> bool:
        worn = failed.message.attempts >= self._max_attempts
        return failed.fault is Fault.MESSAGE or (failed.fault is Fault.ATTEMPT and worn)

    def _later(self, failed: Failed) -> dict[str, Any]:
        doublings = min(failed.message.attempts - 1, 20)
        backoff = min(self._backoff_seconds * 2.0**doublings, LONGEST_BACKOFF_SECONDS)
        return {
            **_failure(failed.message, failed.error),
            "seconds": max(backoff, failed.retry_seconds),
            "counts": failed.fault is Fault.ATTEMPT,
        }


def alert_key(model: str) -> str:
    """The key of the alert that a model has dead letters."""
    return f"{AlertKind.DEAD_LETTERS}:{model}"


def _result(scored: Scored) -> str:
    # The answer is JSON already.
    version = json.dumps(scored.version)
    return f'{{"id":{scored.message.id},"version":{version},"answer":{scored.answer}}}'


def _finish(connection: Connection, ids: list[int]) -> set[int]:
    """Remove messages whose key has a result; with another body they are dead letters."""
    gone = connection.execute(text(_FINISH), {"ids": ids, "reused": REUSED}).all()
    _tell(connection, [row.model for row in gone if row.died])
    return {row.id for row in gone}


def _failure(row: Any, error: str) -> dict[str, Any]:
    return {"id": row.id, "attempts": row.attempts, "why": one_line(error)[:LONGEST_ERROR]}


def _bury(connection: Connection, failures: list[dict[str, Any]]) -> None:
    if failures:
        dead = connection.execute(text(_BURY), {"failures": json.dumps(failures)})
        _tell(connection, dead.scalars())


def _tell(connection: Connection, models: Iterable[str]) -> None:
    for model in sorted(set(models)):
        alert = Alert(
            kind=AlertKind.DEAD_LETTERS,
            subject=model,
            key=alert_key(model),
            severity=Severity.WARNING,
            summary="Messages of the queue cannot be scored; they are dead letters.",
            raised_at=datetime.now(UTC),
        )
        raise_within(connection, alert)
