"""Anchors: heads of the ledger, put aside in another store than the database.

A chain proves that its rows belong together; cut at the end, or made anew from some row on, it
still does. An anchor says what the chain was once: no later chain may go around it.
"""

from datetime import UTC, datetime

from pydantic import Field, ValidationError
from sqlalchemy import text

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.record import Record
from aios_platform.database import Database
from aios_platform.errors import LedgerBroken, LedgerError

FOLDER = "ledger/anchors"


class Anchor(Record):
    """The head of the ledger at one moment."""

    seq: int = Field(ge=1)
    hash: str = Field(pattern="^[0-9a-f]{64}$")
    made_at: datetime

    @property
    def short(self) -> str:
        """`SEQ:HASH`, to be written down or printed."""
        return f"{self.seq}:{self.hash}"


def anchor(database: Database, store: ArtifactStore) -> Anchor | None:
    """Put the head aside, once the chain since the newest anchor was verified.

    Args:
        database: Where the ledger lives.
        store: The artifact root; the anchor is written there once and never replaced.

    Returns:
        The anchor (the one that is there, where the head was anchored before); None while the
        ledger has no rows.

    Raises:
        LedgerBroken: The chain since the newest anchor does not hold, or another head is anchored
            under this number.
        StoreError: It cannot be written.
        DatabaseUnavailable: The ledger cannot be read.
    """
    from aios_platform.ledger.verification import verify

    known = anchors(store)
    newest = known[-1] if known else None
    if newest is not None:
        _require_row(database, newest)
    found = verify(database, since=newest)
    found.require()
    if found.last == 0 or (newest is not None and newest.seq == found.last):
        return newest
    made = Anchor(seq=found.last, hash=found.hash, made_at=datetime.now(UTC))
    if not store.write_once(name_of(made.seq), made.model_dump_json(indent=1).encode()):
        [there] = [a for a in anchors(store) if a.seq == made.seq]
        if there.hash != made.hash:
            raise LedgerBroken(
                f"Row {made.seq} was anchored with the hash {there.hash[:12]}; it now has "
                f"{made.hash[:12]}.",
                remedy="The ledger was rewritten: `aios ledger verify`.",
            )
        return there
    return made


def anchors(store: ArtifactStore) -> list[Anchor]:
    """The anchors that were put aside, oldest first.

    Raises:
        LedgerError: One cannot be read.
    """
    return sorted(
        (read(store.read_named(name) or b"", name) for name in store.names(FOLDER, ".json")),
        key=lambda made: made.seq,
    )


def read(content: bytes, where: str) -> Anchor:
    """An anchor from the bytes of its file.

    Raises:
        LedgerError: They are not an anchor.
    """
    try:
        return Anchor.model_validate_json(content)
    except ValidationError as error:
        raise LedgerError(
            f"The anchor {where} cannot be read: {error.errors()[0]['msg']}.",
            remedy="Restore the file from a backup; an anchor is never edited.",
        ) from error


def parse(value: str) -> Anchor:
    """An anchor from `SEQ:HASH`.

    Raises:
        LedgerError: It has another form.
    """
    seq, _, digest = value.strip().partition(":")
    try:
        return Anchor(seq=int(seq), hash=digest.lower(), made_at=datetime.now(UTC))
    except ValueError as error:
        raise LedgerError(
            f"'{value}' is not an anchor.", remedy="Give SEQ:HASH as `aios ledger anchor` prints."
        ) from error


def name_of(seq: int) -> str:
    """Where the anchor of this row lies in the artifact root."""
    return f"{FOLDER}/{seq:012d}.json"


def _require_row(database: Database, made: Anchor) -> None:
    with database.begin() as connection:
        digest = connection.execute(
            text("SELECT hash FROM ledger WHERE seq = :seq"), {"seq": made.seq}
        ).scalar()
    if digest != made.hash:
        raise LedgerBroken(
            f"Row {made.seq}, anchored at {made.made_at:%Y-%m-%d %H:%M}, is not in the ledger "
            "with the hash it had.",
            remedy="The ledger was cut or rewritten: `aios ledger verify` names the place.",
        )
