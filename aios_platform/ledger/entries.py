"""Rows of the ledger: what was decided, by whom, about what, on which evidence.

The database refuses to update, delete or truncate rows. An idempotency key makes an append safe
to repeat: the same key gives the row that is already there.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from aios_platform.contracts.record import Record, canonical_json
from aios_platform.database import Database
from aios_platform.ledger.actor import current_actor


class LedgerEntry(Record):
    """One row of the ledger."""

    seq: int
    recorded_at: datetime
    actor: str
    kind: str
    subject: str
    payload: dict[str, Any]


def append(
    connection: Connection, *, kind: str, subject: str, payload: dict[str, Any], key: str
) -> int:
    """Append one row inside the caller's transaction.

    Args:
        connection: Connection of a `Database.begin()` transaction.
        kind: What was decided, e.g. 'promotion'.
        subject: What it is about: the model's name.
        payload: The decision and its evidence, JSON-able.
        key: Idempotency key; a second append with it returns the first row.

    Returns:
        The row's sequence number.
    """
    inserted = connection.execute(
        text(
            "INSERT INTO ledger (actor, kind, subject, payload, idempotency_key) "
            "VALUES (:actor, :kind, :subject, CAST(:payload AS jsonb), :key) "
            "ON CONFLICT (idempotency_key) DO NOTHING RETURNING seq"
        ),
        {
            "actor": current_actor(),
            "kind": kind,
            "subject": subject,
            "payload": canonical_json(payload),
            "key": key,
        },
    ).scalar()
    if inserted is None:
        inserted = connection.execute(
            text("SELECT seq FROM ledger WHERE idempotency_key = :key"), {"key": key}
        ).scalar_one()
    return int(inserted)


def payload_of(connection: Connection, seq: int) -> dict[str, Any]:
    """The payload of one row, inside the caller's transaction."""
    found: dict[str, Any] = connection.execute(
        text("SELECT payload FROM ledger WHERE seq = :seq"), {"seq": seq}
    ).scalar_one()
    return found


def entries(
    database: Database, *, subject: str | None = None, kind: str | None = None, limit: int = 100
) -> list[LedgerEntry]:
    """The newest rows, newest first.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT seq, recorded_at, actor, kind, subject, payload FROM ledger "
                "WHERE (CAST(:subject AS text) IS NULL OR subject = :subject) "
                "AND (CAST(:kind AS text) IS NULL OR kind = :kind) "
                "ORDER BY seq DESC LIMIT :limit"
            ),
            {"subject": subject, "kind": kind, "limit": limit},
        ).mappings()
        return [LedgerEntry.model_validate(dict(row)) for row in rows]
