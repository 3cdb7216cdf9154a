"""Idempotency keys: the same key and body get the same answer, byte for byte, and one record.

After the draft "The Idempotency-Key HTTP Header Field" (draft-ietf-httpapi-idempotency-key-header):
another body under the same key is refused, and so is a second request while the first is being
answered. Answers that the caller may retry (429, 5xx) are not stored.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, text

from aios_platform.database import Database
from aios_platform.errors import DatabaseUnavailable, RequestRefused, ServingError

LONGEST_KEY = 200

T = TypeVar("T")

# A key is free when nobody has it, when what it answered is too old, or when its holder was killed.
_BEGIN = """
INSERT INTO idempotent_answer AS kept (principal, model, key, body_digest, holder, held_until)
VALUES (:principal, :model, :key, :digest, :holder,
    clock_timestamp() + make_interval(secs => :lease))
ON CONFLICT (principal, model, key) DO UPDATE SET
    body_digest = excluded.body_digest, holder = excluded.holder,
    held_until = excluded.held_until, created_at = excluded.created_at,
    status = NULL, content_type = NULL, answer = NULL
WHERE kept.created_at < clock_timestamp() - make_interval(secs => :keep)
    OR (kept.status IS NULL AND kept.held_until < clock_timestamp()
        AND kept.body_digest = excluded.body_digest)
RETURNING 1
"""
_FIND = """
SELECT body_digest, status, content_type, answer FROM idempotent_answer
WHERE principal = :principal AND model = :model AND key = :key
"""
# The first answer to a body stays, also where a second holder took the key over.
_FINISH = """
INSERT INTO idempotent_answer AS kept
    (principal, model, key, body_digest, holder, held_until, status, content_type, answer)
VALUES (:principal, :model, :key, :digest, :holder, clock_timestamp(),
    :status, :content_type, :answer)
ON CONFLICT (principal, model, key) DO UPDATE SET
    status = excluded.status, content_type = excluded.content_type, answer = excluded.answer
WHERE kept.status IS NULL AND kept.body_digest = excluded.body_digest
RETURNING 1
"""
_RELEASE = """
DELETE FROM idempotent_answer WHERE principal = :principal AND model = :model AND key = :key
    AND holder = :holder AND status IS NULL
"""
_FORGET = """
DELETE FROM idempotent_answer
WHERE created_at < clock_timestamp() - make_interval(secs => :keep)
"""


class Stored(NamedTuple):
    """An answer as it went to the caller."""

    status: int
    content_type: str
    answer: bytes


class _Hold(NamedTuple):
    holder: str
    digest: str


class Idempotency:
    """Keys and their answers, in the table `idempotent_answer`.

    Whoever got a key by `begin` calls `finish` or `release` in any case: until then the key is
    refused to everybody; a killed process's keys are free after their lease.

    Args:
        database: Where they are.
        lease_seconds: After which another process takes over a key whose holder is silent; longer
            than any answer takes.
        keep: For how long an answer is given again; the key is as good as new then.
        patience_seconds: After which a database that is silent counts as gone.
    """

    def __init__(
        self,
        database: Database,
        *,
        lease_seconds: float = 30.0,
        keep: timedelta = timedelta(hours=24),
        patience_seconds: float = 2.0,
    ) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._keep = keep
        self._patience_seconds = patience_seconds
        self._held: dict[tuple[str, str, str], _Hold] = {}

    async def begin(self, principal: str, model: str, key: str, body: bytes) -> Stored | None:
        """Take a key, or get what it was answered.

        Args:
            principal: Who calls; keys of others are other keys.
            model: Name of the model.
            key: The caller's `Idempotency-Key`.
            body: The request's body as it came.

        Returns:
            None: the caller holds the key now. Otherwise the answer to give again.

        Raises:
            RequestRefused: `idempotency_key_reused`: the key belongs to another body;
                `idempotency_in_progress`: another request with it is being answered;
                `invalid_request`: it is no key.
            DatabaseUnavailable: It cannot be told.
        """
        if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
            raise RequestRefused(
                f"The Idempotency-Key has {len(key)} characters, or unprintable ones.",
                remedy=f"Send 1 to {LONGEST_KEY} printable characters, e.g. a UUID.",
            )
        hold = _Hold(uuid.uuid4().hex, hashlib.sha256(body).hexdigest())
        name = (principal, model, key)
        ours = self._held.get(name)
        if ours is not None:
            raise _refusal(ours.digest, hold.digest)
        stored = await self._in_time(self._begin, name, hold)
        if stored is None:
            self._held[name] = hold
        return stored

    async def finish(
        self,
        principal: str,
        model: str,
        key: str,
        stored: Stored,
        record: Callable[[Connection], None] | None = None,
    ) -> Stored:
        """Store the answer of a key that `begin` gave, and free the key.

        Args:
            principal: As in `begin`.
            model: As in `begin`.
            key: As in `begin`.
            stored: The answer.
            record: Writes the record of the answer in the same transaction, in a thread; called
                only where this answer is the one that is stored.

        Returns:
            The answer to give: `stored`, or another's who took the key over after its lease and
            was faster.

        Raises:
            RequestRefused: `idempotency_key_reused`: the lease ran out, and the key belongs to
                another body now.
            DatabaseUnavailable: Neither was written, or that is not known; `release` the key.
            ServingError: `begin` did not give the key.
        """
        name = (principal, model, key)
        hold = self._held.get(name)
        if hold is None:
            raise ServingError(
                f"An answer of {model} has a key that nobody holds.",
                remedy="Call `begin` before `finish`, and `finish` once.",
            )
        answered = await self._in_time(self._finish, name, hold, stored, record)
        self._held.pop(name, None)
        return answered

    async def release(self, principal: str, model: str, key: str) -> None:
        """Free a key without an answer: the request failed in a way that may be retried.

        Raises:
            DatabaseUnavailable: The key was not freed; it is after its lease.
        """
        name = (principal, model, key)
        hold = self._held.pop(name, None)
        if hold is not None:
            await self._in_time(self._execute, _RELEASE, {**_named(name), **hold._asdict()})

    def forget_old(self) -> int:
        """Delete answers that are older than they are kept; how many.

        Raises:
            DatabaseUnavailable: None was.
        """
        return self._execute(_FORGET, {"keep": self._keep.total_seconds()})

    async def _in_time(self, work: Callable[..., T], *values: Any) -> T:
        """Do something in a thread, which goes on alone when it takes too long."""
        try:
            return await asyncio.wait_for(asyncio.to_thread(work, *values), self._patience_seconds)
        except TimeoutError:
            raise DatabaseUnavailable(
                f"Postgres was silent for {self._patience_seconds:g} s.",
                remedy="Send the request again, with the same key.",
            ) from None

    def _begin(self, name: tuple[str, str, str], hold: _Hold) -> Stored | None:
        lease = {"lease": self._lease_seconds, "keep": self._keep.total_seconds()}
        with self._database.begin() as connection:
            theirs = _write(connection, _BEGIN, name, {**hold._asdict(), **lease})
        if theirs is None:
            return None
        if theirs.status is None or theirs.body_digest != hold.digest:
            raise _refusal(theirs.body_digest, hold.digest)
        return Stored(theirs.status, theirs.content_type, bytes(theirs.answer))

    def _finish(
        self,
        name: tuple[str, str, str],
        hold: _Hold,
        stored: Stored,
        record: Callable[[Connection], None] | None,
    ) -> Stored:
        with self._database.begin() as connection:
            theirs = _write(connection, _FINISH, name, {**hold._asdict(), **stored._asdict()})
            if theirs is None:
                if record is not None:
                    record(connection)
                return stored
        if theirs.body_digest != hold.digest:
            raise _refusal(theirs.body_digest, hold.digest)
        return Stored(theirs.status, theirs.content_type, bytes(theirs.answer))

    def _execute(self, statement: str, parameters: dict[str, object]) -> int:
        with self._database.begin() as connection:
            return connection.execute(text(statement), parameters).rowcount


def _write(
    connection: Connection, statement: str, name: tuple[str, str, str], values: dict[str, Any]
) -> Any | None:
    """Write a key's row; None where it was written, the row of another where that stands."""
    while True:
        if connection.execute(text(statement), {**_named(name), **values}).one_or_none():
            return None
        theirs = connection.execute(text(_FIND), _named(name)).one_or_none()
        # None: its holder has released it since.
        if theirs is not None:
            return theirs


def _named(name: tuple[str, str, str]) -> dict[str, object]:
    return dict(zip(("principal", "model", "key"), name, strict=True))


def _refusal(kept: str, digest: str) -> RequestRefused:
    if kept != digest:
        return RequestRefused(
            "This Idempotency-Key was used with another body.",
            code="idempotency_key_reused",
            remedy="Send the same body again, or a new key.",
        )
    return RequestRefused(
        "The first request with this Idempotency-Key is still being answered.",
        code="idempotency_in_progress",
        remedy="Send it again in a moment.",
    )
