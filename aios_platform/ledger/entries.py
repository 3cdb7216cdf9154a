"""Rows of the ledger: what was decided, by whom, about what, on which evidence.

The database numbers, times and chains the rows, and refuses to update, delete or truncate them
(`migrations/versions/0002_guards.sql`). An idempotency key makes an append safe to repeat: the
same key gives the row that is already there.
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from aios_platform.contracts.record import Record, canonical_json
from aios_platform.database import Database
from aios_platform.errors import AccessDenied, ApprovalError, LedgerError
from aios_platform.ledger.identity import Identity, identity

logger = logging.getLogger(__name__)

COLUMNS = (
    "seq, recorded_at, clock, principal, kind, subject, evidence, payload_text, "
    "idempotency_key AS key, previous, hash"
)
# Not preceded by an odd number of backslashes, which would make it six ordinary characters.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_DIGEST = re.compile("[0-9a-f]{64}")
_LOCK_NOT_AVAILABLE = "55P03"
# What the triggers raise.
_REFUSALS: dict[str, type[LedgerError] | type[AccessDenied] | type[ApprovalError]] = {
    "AI001": AccessDenied,
    "AI002": ApprovalError,
}


class LedgerEntry(Record):
    """One row of the ledger."""

    seq: int
    recorded_at: datetime
    clock: datetime | None = Field(
        default=None, description="What the clock said, where it was behind the row before."
    )
    principal: str
    kind: str
    subject: str
    evidence: tuple[str, ...] = Field(default=(), description="SHA-256 of what it rests on.")
    payload: dict[str, Any]
    key: str
    previous: str = Field(description="Hash of the row before.")
    hash: str


def append(
    connection: Connection,
    *,
    kind: str,
    subject: str,
    payload: dict[str, Any],
    key: str,
    evidence: Sequence[str] = (),
    principal: str | None = None,
    proof: str = "",
) -> int:
    """Append one row inside the caller's transaction.

    Appends wait for one another until that transaction ends: append late, and never a second
    time through another connection while one is open.

    Args:
        connection: Connection of a `Database.begin()` transaction.
        kind: What was decided, e.g. 'promotion'.
        subject: What it is about: the model's name.
        payload: The decision, JSON-able.
        key: Idempotency key; a second append with it returns the first row.
        evidence: SHA-256 digests (hex) of what the decision rests on.
        principal: Who decided; default, who acts in this process (`access.principals.acting`).
        proof: Proves the principal to the database, for kinds of rows that need a role.

    Returns:
        The row's sequence number.

    Raises:
        AccessDenied: The acting principal cannot be told, or may not write such a row.
        ApprovalError: The row decides on a request that is not open to it.
        LedgerError: The payload is not JSON, or evidence is not a digest.
    """
    who = identity(connection) if principal is None else Identity(principal, proof)
    if who.proof:
        connection.execute(
            text("SELECT set_config('aios.proof', :proof, true)"), {"proof": who.proof}
        )
    values = {
        "principal": who.name,
        "kind": kind,
        "subject": subject,
        "evidence": _digests(evidence),
        "payload": _payload_text(kind, payload),
        "key": key,
    }
    try:
        inserted = connection.execute(
            text(
                "INSERT INTO ledger "
                "(principal, kind, subject, evidence, payload_text, idempotency_key) "
                "VALUES (:principal, :kind, :subject, :evidence, :payload, :key) "
                "RETURNING seq, recorded_at, clock"
            ),
            values,
        ).one_or_none()
    except DBAPIError as error:
        raise _refusal(error) or error from error
    if inserted is None:
        return int(
            connection.execute(
                text("SELECT seq FROM ledger WHERE idempotency_key = :key"), {"key": key}
            ).scalar_one()
        )
    if inserted.clock is not None:
        logger.warning(
            "The server's clock (%s) is behind the ledger's last row (%s): row %d takes the "
            "time of that row.",
            inserted.clock, inserted.recorded_at, inserted.seq,
        )  # fmt: skip
    return int(inserted.seq)


def payload_of(connection: Connection, seq: int) -> dict[str, Any]:
    """The payload of one row, inside the caller's transaction."""
    found: dict[str, Any] = json.loads(
        connection.execute(
            text("SELECT payload_text FROM ledger WHERE seq = :seq"), {"seq": seq}
        ).scalar_one()
    )
    return found


def entry(database: Database, seq: int) -> LedgerEntry:
    """One row.

    Raises:
        LedgerError: There is no such row.
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        row = (
            connection.execute(
                text(f"SELECT {COLUMNS} FROM ledger WHERE seq = :seq"),  # noqa: S608
                {"seq": seq},
            )
            .mappings()
            .one_or_none()
        )
    if row is None:
        raise LedgerError(
            f"The ledger has no row {seq}.", remedy="`aios ledger show` lists the newest rows."
        )
    return _entry(row)


def entries(
    database: Database, *, subject: str | None = None, kind: str | None = None, limit: int = 100
) -> list[LedgerEntry]:
    """The newest rows, newest first.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        return select(connection, subject=subject, kind=kind, limit=limit)


def select(
    connection: Connection,
    *,
    subject: str | None = None,
    kind: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[LedgerEntry]:
    """The newest rows after a row, newest first, inside the caller's transaction."""
    rows = connection.execute(
        text(
            f"SELECT {COLUMNS} FROM ledger "  # noqa: S608
            "WHERE (CAST(:subject AS text) IS NULL OR subject = :subject) "
            "AND (CAST(:kind AS text) IS NULL OR kind = :kind) "
            "AND seq > :after ORDER BY seq DESC LIMIT :limit"
        ),
        {"subject": subject, "kind": kind, "after": after, "limit": limit},
    ).mappings()
    return [_entry(row) for row in rows]


def _entry(row: Mapping[Any, Any]) -> LedgerEntry:
    # From the text that was hashed: jsonb gives 1e16 back as an integer.
    values = dict(row)
    return LedgerEntry(payload=json.loads(values.pop("payload_text")), **values)


def _payload_text(kind: str, payload: dict[str, Any]) -> str:
    # Written, read and written again: keys that were not strings are sorted as what they became.
    try:
        written = canonical_json(json.loads(canonical_json(payload), parse_constant=_refuse))
        written.encode()
        if _NUL.search(written):
            raise ValueError("it holds the character NUL")
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerError(
            f"The payload of a row of kind '{kind}' is not JSON: {error}.",
            remedy="Give text, finite numbers, lists and mappings; model_dump(mode='json') does.",
        ) from error
    return written


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number in JSON")


def _digests(evidence: Sequence[str]) -> list[str]:
    wrong = [digest for digest in evidence if not _DIGEST.fullmatch(digest)]
    if wrong:
        raise LedgerError(
            f"'{wrong[0]}' is not a SHA-256 digest.",
            remedy="Evidence is given as digests: 64 hexadecimal digits each.",
        )
    return list(evidence)


def _refusal(error: DBAPIError) -> Exception | None:
    """What a trigger of ours raised, as an error of ours."""
    code = getattr(error.orig, "pgcode", None) or ""
    if code == _LOCK_NOT_AVAILABLE:
        return LedgerError(
            "Another transaction has held the end of the ledger for too long; nothing was written.",
            remedy="Run the same command again. A program that appends twice, through two "
            "connections at once, waits for itself.",
        )
    kind = _REFUSALS.get(code)
    if kind is None:
        return None
    said = error.orig.diag  # type: ignore[union-attr]
    return kind(str(said.message_primary), remedy=str(said.message_hint or ""))
