"""Claims: each cause of a run is asked for once, whoever asks, and done by one run.

A cause is claimed before its run is asked for, by a row with a unique key, and the claim is bound
to the run that begins the work: a run that was launched twice finds it bound and does nothing.
The row does not depend on Dagster's records, which forget runs that are purged and never forget
the key of one that failed.

A claim without a run is lost when whoever claimed it died in between. The daemon takes a new
*term* with its lock, so what it finds claimed under an earlier one was lost with its predecessor.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Any

from pydantic import Field
from sqlalchemy import text

from aios_platform.contracts.record import Record
from aios_platform.database import Database

DAEMON_LOCK = "aios daemon"
# From a claim to the record of its run lie one answer of a code server and a few writes.
LEASE_SECONDS = 300

# Whether a session holds the lock of the one daemon; asking does not take it.
_DAEMON_RUNS = """EXISTS (
            SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (classid::bigint << 32 | objid::bigint) = hashtextextended(:lock, 0))"""
_CLAIM_AGAIN = f"""
UPDATE cause_claim SET asker = :asker, term = :term, run_id = :run_id,
    claimed_at = clock_timestamp()
WHERE cause_key = :key AND attempt = :attempt AND run_id IS NULL AND outcome IS NULL
    AND :term = (SELECT term FROM daemon_term FOR SHARE)
    AND (asker = :asker AND term < :term
        OR CAST(:run_id AS text) IS NOT NULL AND (term < :term OR NOT {_DAEMON_RUNS})
        OR abs(extract(epoch FROM clock_timestamp() - claimed_at)) > :lease)
"""  # noqa: S608
_COLUMNS = "cause_key AS key, attempt, model, job, cause, asker, term, run_id, outcome"


class Outcome(StrEnum):
    """What became of an attempt."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """Its run failed, was killed, or was cancelled."""
    GONE = "gone"
    """Nobody knows: the record of its run was deleted."""


class Claim(Record):
    """One attempt at one cause."""

    key: str = Field(description="Idempotency key of the cause.")
    attempt: int = Field(ge=1)
    model: str
    job: str
    cause: str
    asker: str = Field(description="The sensor, schedule or command that asked for the run.")
    term: int = Field(description="The term it was claimed in; 0: by nobody's plan.")
    run_id: str | None = Field(default=None, description="The run that does the work.")
    outcome: Outcome | None = None

    @property
    def run_key(self) -> str:
        """The key of the attempt's run, which no other attempt has."""
        return f"{self.key}#{self.attempt}"


def claims_of(database: Database, key: str) -> list[Claim]:
    """All attempts at a cause, oldest first.

    Raises:
        DatabaseUnavailable: The claims cannot be read.
    """
    with database.begin() as connection:
        rows = connection.execute(
            text(f"SELECT {_COLUMNS} FROM cause_claim WHERE cause_key = :key ORDER BY attempt"),  # noqa: S608
            {"key": key},
        ).mappings()
        return [Claim.model_validate(dict(row)) for row in rows]


def claim(database: Database, wanted: Claim) -> bool:
    """Claim an attempt at a cause.

    Returns:
        Whether the attempt was free. It counts as taken, too, when a new term has begun since the
        claim's was read: who asks then asks for a daemon that is no more.

    Raises:
        DatabaseUnavailable: Nothing was claimed.
    """
    with database.begin() as connection:
        made = connection.execute(
            text(
                "INSERT INTO cause_claim "
                "(cause_key, attempt, model, job, cause, asker, term, run_id) "
                "SELECT :key, :attempt, :model, :job, :cause, :asker, :term, :run_id "
                "FROM (SELECT term FROM daemon_term FOR SHARE) AS now "
                "WHERE now.term = :term "
                "ON CONFLICT DO NOTHING"
            ),
            wanted.model_dump(mode="json", exclude={"outcome"}),
        )
        return made.rowcount == 1


def claim_again(
    database: Database, lost: Claim, *, asker: str, term: int, run_id: str | None
) -> bool:
    """Take over an attempt whose claim was lost, for the asker's run.

    No run was bound to a lost claim, and one of these holds: an earlier term's daemon evaluated
    the same asker, which has been back at what it had begun to launch; it is past its lease (by
    the clock, or by one that stepped back); or the new run is bound here and now, and no daemon
    is about to launch another.

    Returns:
        Whether it was lost, and is taken over.

    Raises:
        DatabaseUnavailable: Nothing was taken over.
    """
    with database.begin() as connection:
        taken = connection.execute(
            text(_CLAIM_AGAIN),
            {
                "key": lost.key, "attempt": lost.attempt, "asker": asker, "term": term,
                "run_id": run_id, "lease": LEASE_SECONDS, "lock": DAEMON_LOCK,
            },
        )  # fmt: skip
        return taken.rowcount == 1


def settle(database: Database, claimed: Claim, outcome: Outcome) -> bool:
    """Write down what became of an attempt, unless a run has been bound to it since it was read."""
    with database.begin() as connection:
        done = connection.execute(
            text(
                "UPDATE cause_claim SET outcome = :outcome WHERE cause_key = :key "
                "AND attempt = :attempt AND outcome IS NULL "
                "AND run_id IS NOT DISTINCT FROM CAST(:run_id AS text)"
            ),
            {
                "key": claimed.key, "attempt": claimed.attempt, "run_id": claimed.run_id,
                "outcome": outcome,
            },
        )  # fmt: skip
        return done.rowcount == 1


def bind(database: Database, wanted: Claim, *, after: Collection[str] = ()) -> str | None:
    """Bind an attempt to the run that begins it; safe to repeat.

    Args:
        database: Where the claims are.
        wanted: The attempt, with the run's id. One that nobody claimed is claimed.
        after: Runs that have ended and that this one repeats, because a person wants it.

    Returns:
        None where the run is to do the work; the id of the run that does it, or has done it, or
        an empty text where the attempt was settled without a run.

    Raises:
        DatabaseUnavailable: It is not bound.
    """
    with database.begin() as connection:
        bound = connection.execute(
            text(
                "INSERT INTO cause_claim AS old "
                "(cause_key, attempt, model, job, cause, asker, term, run_id) "
                "VALUES (:key, :attempt, :model, :job, :cause, :asker, :term, :run_id) "
                "ON CONFLICT (cause_key, attempt) DO UPDATE "
                "SET run_id = excluded.run_id, outcome = NULL "
                "WHERE old.outcome IS NULL AND (old.run_id IS NULL OR old.run_id = :run_id) "
                "OR old.run_id = ANY (CAST(:after AS text[]))"
            ),
            {**wanted.model_dump(mode="json", exclude={"outcome"}), "after": list(after)},
        )
        if bound.rowcount == 1:
            return None
        found: Any = connection.execute(
            text("SELECT run_id FROM cause_claim WHERE cause_key = :key AND attempt = :attempt"),
            {"key": wanted.key, "attempt": wanted.attempt},
        ).scalar_one()
        return str(found or "")


def new_term(database: Database) -> int:
    """Begin the term of a daemon that has just taken the lock.

    Raises:
        DatabaseUnavailable: It has no term then, and must not schedule.
    """
    with database.begin() as connection:
        return int(
            connection.execute(
                text("UPDATE daemon_term SET term = term + 1 RETURNING term")
            ).scalar_one()
        )


def daemon_runs(database: Database) -> bool:
    """Whether a daemon schedules on this database now.

    Raises:
        DatabaseUnavailable: The server does not answer.
    """
    with database.begin() as connection:
        found = connection.execute(text(f"SELECT {_DAEMON_RUNS}"), {"lock": DAEMON_LOCK})
        return bool(found.scalar_one())


def term_now(database: Database) -> int:
    """The newest term: that of the daemon that holds the lock, or held it last.

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    with database.begin() as connection:
        return int(connection.execute(text("SELECT term FROM daemon_term")).scalar_one())
