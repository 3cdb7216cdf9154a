"""Rollouts on the ledger: the newest row of kind `rollout` about a model says where it stands.

A row is written under the lock of the champion's swap, and only upon the row that its writer has
read: of two operators, or a sensor and an operator, one moves the rollout and the other is told.
"""

from typing import Any

from pydantic import Field
from sqlalchemy import Connection, text

from aios_platform.contracts.record import Record
from aios_platform.contracts.rollouts import ACTIVE, Rollout
from aios_platform.database import Database
from aios_platform.errors import RolloutError
from aios_platform.ledger.approvals import lock_champion
from aios_platform.ledger.entries import LedgerEntry, append, select

ROLLOUT = "rollout"
# More rows than the rollouts of a model fill in its life.
MOST_ROWS = 10_000

_ACTIVE = """
SELECT payload -> 'rollout' FROM (
    SELECT DISTINCT ON (subject) payload FROM ledger
    WHERE kind = 'rollout' ORDER BY subject, seq DESC
) AS newest WHERE payload -> 'rollout' ->> 'state' = ANY (:states)
"""


class Standing(Record):
    """A rollout as one row of the ledger has it."""

    rollout: Rollout
    ledger_row: int = Field(ge=1)
    by: str = Field(description="Principal that wrote the row.")


def active_rollouts(database: Database) -> dict[str, Rollout]:
    """The rollouts that concern the gateway, by model: one query.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(text(_ACTIVE), {"states": list(ACTIVE)}).scalars()
        found = [Rollout.model_validate(row) for row in rows]
    return {rollout.model: rollout for rollout in found}


def newest(database: Database, model: str) -> Rollout | None:
    """The model's newest rollout, open or ended; None: it never had one.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    found = standing(database, model)
    return found.rollout if found else None


def standing(database: Database, model: str) -> Standing | None:
    """`newest`, with its row.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        return _newest(connection, model)


def record(
    connection: Connection,
    rollout: Rollout,
    *,
    after: Standing | None,
    beginning: dict[str, Any] | None = None,
) -> Standing:
    """Write where a rollout stands now, if nobody has moved it since it was read.

    Args:
        connection: Connection of a `Database.begin()` transaction. Others wait until it ends.
        rollout: The new state.
        after: What the caller has read, and now moves on from; None: there was no rollout.
        beginning: With the first row: what the promotion will need (`begun_with`).

    Raises:
        RolloutError: Somebody else has moved it, or started another one; nothing was written.
        AccessDenied: Who acts is no operator.
    """
    lock_champion(connection, rollout.model)
    found = _newest(connection, rollout.model)
    if (found.ledger_row if found else None) != (after.ledger_row if after else None):
        what = (
            f"rollout {found.rollout.number} of version {found.rollout.version} is "
            f"{found.rollout.state} at step {found.rollout.step + 1} (row {found.ledger_row}, "
            f"by {found.by})"
            if found
            else "it is gone"
        )
        raise RolloutError(
            f"Somebody else has moved the rollout of {rollout.model} meanwhile: {what}.",
            remedy=f"Look again: `aios rollout {rollout.model} status`.",
        )
    payload: dict[str, Any] = {"rollout": rollout.model_dump(mode="json")}
    if beginning is not None:
        payload["beginning"] = beginning
    row = append(
        connection,
        kind=ROLLOUT,
        subject=rollout.model,
        payload=payload,
        key=f"{ROLLOUT}:{rollout.model}:{after.ledger_row if after else 0}",
        evidence=[rollout.model_digest, rollout.training_set_digest],
    )
    [written] = select(connection, subject=rollout.model, kind=ROLLOUT, after=row - 1, limit=1)
    return _standing(written)


def begun_with(database: Database, rollout: Rollout) -> dict[str, Any]:
    """What the first row of a rollout says that its promotion needs.

    Raises:
        RolloutError: The ledger has no such row.
        DatabaseUnavailable: The ledger cannot be read.
    """
    for row in rows_of(database, rollout):
        if "beginning" in row.payload:
            beginning: dict[str, Any] = row.payload["beginning"]
            return beginning
    raise RolloutError(
        f"The ledger does not say how rollout {rollout.number} of {rollout.model} began.",
        remedy="`aios ledger verify` says whether the ledger holds; abort it and start another.",
    )


def rows_of(database: Database, rollout: Rollout) -> list[LedgerEntry]:
    """The rows of one rollout, newest first.

    Raises:
        DatabaseUnavailable: The ledger cannot be read.
    """
    with database.begin() as connection:
        found = select(connection, subject=rollout.model, kind=ROLLOUT, limit=MOST_ROWS)
    return [row for row in found if row.payload["rollout"]["number"] == rollout.number]


def _newest(connection: Connection, model: str) -> Standing | None:
    rows = select(connection, subject=model, kind=ROLLOUT, limit=1)
    return _standing(rows[0]) if rows else None


def _standing(row: LedgerEntry) -> Standing:
    return Standing(
        rollout=Rollout.model_validate(row.payload["rollout"]),
        ledger_row=row.seq,
        by=row.principal,
    )
