"""Attestations: a person says that a test was run for a model, where that can be seen, until when.

Whatever no machine can find out (whether features meet the policy, whether a metric follows the
business) stands on the name of somebody who holds a role.
"""

import uuid
from datetime import UTC, datetime, timedelta

from pydantic import Field

from aios_platform.contracts.record import Record
from aios_platform.database import Database
from aios_platform.errors import LedgerError
from aios_platform.ledger.entries import LedgerEntry, append, entries, entry

ATTESTATION = "attestation"
LONGEST = timedelta(days=366)
MOST_ROWS = 10_000


class Attestation(Record):
    """One row of kind `attestation`."""

    model: str
    test: str
    evidence: str = Field(description="Where the result can be read: a link, a ticket, a file.")
    note: str
    principal: str
    recorded_at: datetime
    expires_at: datetime
    ledger_row: int = Field(ge=1)


def attest(
    database: Database, *, model: str, test: str, evidence: str, note: str, expires_at: datetime
) -> Attestation:
    """Write an attestation. The caller checks the role and the name of the test.

    Args:
        database: Where the ledger lives.
        model: The model.
        test: Name of the test.
        evidence: Where the documented result is.
        note: What was done and found.
        expires_at: Aware; in the future and at most a year away.

    Raises:
        LedgerError: It lacks evidence, a note or an end that may be.
        AccessDenied: Who acts cannot be told.
    """
    now = datetime.now(UTC)
    wrong = ""
    if not evidence.strip() or not note.strip():
        wrong = "it needs evidence that can be looked up, and a note"
    elif not now < expires_at <= now + LONGEST:
        wrong = f"it would expire at {expires_at:%Y-%m-%d %H:%M %Z}"
    if wrong:
        raise LedgerError(
            f"The test '{test}' of {model} was not attested: {wrong}.",
            remedy=f"Say what was found and where it is written, and choose an end in the next "
            f"{LONGEST.days} days.",
        )
    with database.begin() as connection:
        row = append(
            connection,
            kind=ATTESTATION,
            subject=model,
            payload={
                "test": test,
                "evidence": evidence.strip(),
                "note": note.strip(),
                "expires_at": expires_at.astimezone(UTC).isoformat(),
            },
            key=f"{ATTESTATION}:{model}:{test}:{uuid.uuid4().hex}",
        )
    return _attestation(entry(database, row))


def attestations(database: Database, model: str) -> list[Attestation]:
    """Every attestation about a model, newest first, those that have expired included.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    return [
        _attestation(row)
        for row in entries(database, subject=model, kind=ATTESTATION, limit=MOST_ROWS)
    ]


def _attestation(row: LedgerEntry) -> Attestation:
    return Attestation(
        model=row.subject,
        principal=row.principal,
        recorded_at=row.recorded_at,
        ledger_row=row.seq,
        **row.payload,
    )
