"""Waivers: one rule, one model, a reason, a person who answers for it, and an end."""

import re
import uuid
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from aios_platform.contracts.decisions import Waiver
from aios_platform.database import Database
from aios_platform.errors import WaiverError
from aios_platform.ledger.entries import append, select

LONGEST = timedelta(days=90)
MOST_WAIVERS = 10_000
_RULE = re.compile(r"[a-z][a-z0-9_]*([:.\[=].*)?")


def grant(
    database: Database,
    *,
    model: str,
    rule: str,
    reason: str,
    expires_at: datetime,
    unwaivable: Collection[str] = (),
) -> Waiver:
    """Let one rule of the gate pass for one model until a date.

    Args:
        database: Where the ledger lives.
        model: The model.
        rule: Name of the rule, as the verdict has it.
        reason: Why, for whoever reads the verdict later.
        expires_at: Aware; in the future and at most 90 days away.
        unwaivable: Rules that cannot be waived, e.g. that the exam was not trained on.

    Raises:
        WaiverError: It is not one rule, one reason and one end that may be.
        AccessDenied: Who acts is no approver.
    """
    now = datetime.now(UTC)
    wrong = ""
    if not _RULE.fullmatch(rule):
        wrong, remedy = f"'{rule}' is not the name of a rule", "The verdict lists the rules."
    elif rule in unwaivable or rule.partition(":")[0] in unwaivable:
        wrong, remedy = f"the rule '{rule}' cannot be waived", "Mend what it found."
    elif not reason.strip():
        wrong, remedy = "it has no reason", "Say why in a sentence."
    elif not now < expires_at <= now + LONGEST:
        wrong = f"it would expire at {expires_at:%Y-%m-%d %H:%M %Z}"
        remedy = f"Choose a moment in the next {LONGEST.days} days."
    if wrong:
        raise WaiverError(f"A waiver for {model} was not granted: {wrong}.", remedy=remedy)
    with database.begin() as connection:
        row = append(
            connection,
            kind="waiver",
            subject=model,
            payload={
                "rule": rule,
                "reason": reason.strip(),
                "expires_at": expires_at.astimezone(UTC).isoformat(),
            },
            key=f"waiver:{model}:{rule}:{uuid.uuid4().hex}",
        )
        [granted] = select(connection, subject=model, kind="waiver", after=row - 1, limit=1)
        return _waiver(model, granted.seq, granted.principal, granted.payload)


def revoke(database: Database, row: int, *, reason: str) -> None:
    """End a waiver now; ending it twice is the same as once.

    Raises:
        WaiverError: There is no waiver in this row, or the reason is empty.
        AccessDenied: Who acts is no approver.
    """
    with database.begin() as connection:
        model = connection.execute(
            text("SELECT subject FROM ledger WHERE seq = :row AND kind = 'waiver'"), {"row": row}
        ).scalar()
        if model is None or not reason.strip():
            raise WaiverError(
                f"Row {row} of the ledger is no waiver." if model is None else "No reason given.",
                remedy="`aios ledger show --kind waiver` lists them; say why in a sentence.",
            )
        append(
            connection,
            kind="waiver_revoked",
            subject=model,
            payload={"waiver": row, "reason": reason.strip()},
            key=f"waiver_revoked:{row}",
        )


def active(database: Database, model: str, at: datetime) -> dict[str, Waiver]:
    """The waivers in force at a moment, by rule; of several for one rule the newest.

    Args:
        database: Where the ledger lives.
        model: The model.
        at: The moment, aware, by the clock of the ledger: a waiver is in force from the time of
            its row until it expires or is revoked.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        granted = select(connection, subject=model, kind="waiver", limit=MOST_WAIVERS)
        ended = {
            row.payload["waiver"]
            for row in select(connection, subject=model, kind="waiver_revoked", limit=MOST_WAIVERS)
            if row.recorded_at <= at
        }
    found: dict[str, Waiver] = {}
    for row in granted:
        waiver = _waiver(model, row.seq, row.principal, row.payload)
        if row.seq not in ended and row.recorded_at <= at < waiver.expires_at:
            found.setdefault(waiver.rule, waiver)
    return found


def _waiver(model: str, row: int, principal: str, payload: dict[str, Any]) -> Waiver:
    return Waiver(
        model=model,
        rule=payload["rule"],
        reason=payload["reason"],
        principal=principal,
        expires_at=payload["expires_at"],
        ledger_row=row,
    )
