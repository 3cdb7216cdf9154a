"""The review queue: rows on which a version abstained, and what a person decided."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, text

from aios_platform.access.principals import Role, require
from aios_platform.contracts.record import Record, digest_of
from aios_platform.database import Database
from aios_platform.errors import ReviewError
from aios_platform.ledger.entries import append

REVIEW_DECISION = "review_decision"
_COLUMNS = (
    "id AS number, model, version, request_id, place, row_id, inputs, probability, reason, "
    "created_at, decided_at, decided_by, decision"
)


class Review(Record):
    """One row of the queue."""

    number: int
    model: str
    version: str = Field(description="The version that abstained.")
    request_id: str
    place: int = Field(ge=0, description="Place of the row in its request.")
    row_id: str | None = Field(description="The caller's name of the row, by which a label comes.")
    inputs: dict[str, Any] = Field(description="What the model would have answered from, by name.")
    probability: float = Field(description="What it would have answered.")
    reason: str = Field(description="Why it did not.")
    created_at: datetime
    decided_at: datetime | None = None
    decided_by: str | None = None
    decision: bool | None = Field(default=None, description="True: positive.")


def reviews(
    database: Database, model: str, *, open_only: bool = True, limit: int = 100
) -> list[Review]:
    """Rows of a model's queue, those that wait longest first.

    Raises:
        DatabaseUnavailable: The queue cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(
            text(
                f"SELECT {_COLUMNS} FROM review_item WHERE model = :model "  # noqa: S608
                "AND (NOT :open_only OR decided_at IS NULL) ORDER BY id LIMIT :limit"
            ),
            {"model": model, "open_only": open_only, "limit": limit},
        ).mappings()
        return [_review(row) for row in rows]


def review_of(database: Database, model: str, number: int) -> Review:
    """One row of a model's queue.

    Raises:
        ReviewError: There is none of this number.
        DatabaseUnavailable: The queue cannot be read.
    """
    with database.begin() as connection:
        return _read(connection, model, number)


def decide(
    database: Database, model: str, number: int, *, positive: bool, reason: str
) -> tuple[Review, int]:
    """Decide on a row; the same decision again is the same as once.

    Args:
        database: Where the queue and the ledger are.
        model: The model.
        number: Number of the row.
        positive: What the answer should have been.
        reason: Why, for whoever reads the ledger later.

    Returns:
        The row, and the row of the ledger.

    Raises:
        ReviewError: There is none of this number, it was decided otherwise, or no reason is given.
        AccessDenied: Who acts is neither operator nor approver.
        DatabaseUnavailable: The queue cannot be written.
    """
    if not reason.strip():
        raise ReviewError(
            f"Row {number} of the review queue was not decided: no reason given.",
            remedy="Say why in a sentence.",
        )
    who = require(Role.OPERATOR, Role.APPROVER, database=database)
    with database.begin() as connection:
        found = _read(connection, model, number, lock=True)
        if found.decision not in (None, positive):
            raise ReviewError(
                f"Row {number} of the review queue was decided otherwise by {found.decided_by} "
                f"on {found.decided_at:%Y-%m-%d %H:%M} UTC.",
                remedy=f"`aios reviews {model} show {number}` shows the decision; it stands.",
            )
        if found.decision is None:
            connection.execute(
                text(
                    "UPDATE review_item SET decided_at = clock_timestamp(), decided_by = :by, "
                    "decision = :positive WHERE id = :number"
                ),
                {"by": who.name, "positive": positive, "number": number},
            )
        row = append(
            connection,
            kind=REVIEW_DECISION,
            subject=model,
            # The inputs may be personal: the ledger, which forgets nothing, has their digest.
            payload={
                "item": number,
                "version": found.version,
                "request_id": found.request_id,
                "place": found.place,
                "row_id": found.row_id,
                "probability": found.probability,
                "abstained_because": found.reason,
                "positive": positive,
                "reason": reason.strip(),
            },
            key=f"{REVIEW_DECISION}:{number}",
            evidence=[digest_of(found.inputs)],
        )
        return _read(connection, model, number), row


def _read(connection: Connection, model: str, number: int, *, lock: bool = False) -> Review:
    row = (
        connection.execute(
            text(
                f"SELECT {_COLUMNS} FROM review_item WHERE model = :model AND id = :number "  # noqa: S608
                + ("FOR UPDATE" if lock else "")
            ),
            {"model": model, "number": number},
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise ReviewError(
            f"The review queue of {model} has no row {number}.",
            remedy=f"`aios reviews {model} list --all` shows their numbers.",
        )
    return _review(row)


def _review(row: Mapping[Any, Any]) -> Review:
    return Review.model_validate(dict(row))
