"""Who may call: keys and rates, checked in memory for every request.

What the database says is read every few seconds; a request never waits for it. While the database
is gone the last answer stands, for so long that nobody notices a restart, and not for ever.
"""

import asyncio
import hmac
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from aios_platform.access.callers import EVERY_MODEL, CallRights, call_rights
from aios_platform.database import Database
from aios_platform.errors import DatabaseUnavailable, Overloaded, RequestRefused
from aios_platform.ledger.identity import prefix_of, proof_of, stored_hash

MAX_AGE_SECONDS = 900.0
"""For how long keys are believed that could not be read again."""
GUESSES_PER_SECOND = 5.0
GUESSES_AT_ONCE = 20
_SCHEME = b"bearer "
REMEDY = "Send 'Authorization: Bearer KEY' with a valid key; an admin issues one."


class Caller(NamedTuple):
    """Who calls.

    Args:
        name: The principal, or 'anonymous'.
        grants: Model, or `*`, to its most requests per second; None: no limit.
    """

    name: str
    grants: Mapping[str, float | None]


ANONYMOUS = Caller("anonymous", MappingProxyType({EVERY_MODEL: None}))


class RateLimit:
    """So many events per second, as a token bucket that holds one second's worth.

    The generic cell rate algorithm (ITU-T I.371, virtual scheduling), which is a token bucket in
    one number: the time at which the next event would be due.

    Args:
        rate: Events per second, above 0.
        at_once: Most of them at the same moment; default a second's worth, at least one.
    """

    __slots__ = ("_due", "_interval", "_tolerance", "rate")

    def __init__(self, rate: float, at_once: float | None = None) -> None:
        self.rate = rate
        self._interval = 1 / rate
        self._tolerance = self._interval * (max(1.0, at_once or rate) - 1)
        self._due = -math.inf

    def take(self, now: float) -> float:
        """Let one event through: 0; or else the seconds until one may pass.

        Args:
            now: Monotonic time, seconds.
        """
        early = self._due - now - self._tolerance
        # A nanosecond: what a clock's sums are off by is no reason to refuse.
        if early > 1e-9:
            return early
        self._due = max(self._due, now) + self._interval
        return 0.0


@dataclass(frozen=True, slots=True)
class _Holder:
    """Of a valid key: who, until when, and what may be called."""

    hash: str
    caller: Caller
    expires: float
    limits: Mapping[str, RateLimit | None]


class Access:
    """Keys, grants and rates of one gateway process.

    Args:
        database: Where they are.
        required: Whether everybody needs a key. If not, nobody needs one while the installation
            is open, that is until its first key was issued; a key that is sent is checked anyway.
        refresh_seconds: How often `refresh` is to be called.
        clock: Monotonic time, seconds.
    """

    def __init__(
        self,
        database: Database,
        *,
        required: bool,
        refresh_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refresh_seconds = refresh_seconds
        self._database = database
        self._required = required
        self._clock = clock
        self._read_at = -math.inf
        self._open = False
        self._holders: dict[str, _Holder] = {}
        self._limits: dict[tuple[str, str], RateLimit] = {}
        self._verified: dict[bytes, _Holder] = {}
        self._guesses = RateLimit(GUESSES_PER_SECOND, GUESSES_AT_ONCE)

    @property
    def age_seconds(self) -> float:
        """How old what is known is; infinite before the first reading."""
        return self._clock() - self._read_at

    def admit(self, authorization: bytes | None, model: str) -> Caller:
        """Let a request pass, or not; never waits for anything.

        Args:
            authorization: The header's value: `Bearer KEY`.
            model: What it wants to call.

        Raises:
            RequestRefused: 'unauthenticated': no key, or none that is valid; 'forbidden': the key
                may not call this model; 'store_unreachable': what it may was not read
                for too long.
            Overloaded: Too many requests of this key, or too many wrong keys.
        """
        now = self._clock()
        if authorization is None:
            return self._without_key(now)
        # A dictionary compares keyed hashes of the bytes first, so that time tells nothing.
        holder = self._verified.get(authorization) or self._verify(authorization, now)
        if now - self._read_at > MAX_AGE_SECONDS:
            raise _unknown()
        if now >= holder.expires:
            raise RequestRefused("The API key has expired.", code="unauthenticated", remedy=REMEDY)
        limits = holder.limits
        grant = model if model in limits else EVERY_MODEL
        if grant not in limits:
            raise RequestRefused(
                f"{holder.caller.name} may not call {model}.",
                code="forbidden",
                remedy=f"An admin grants it: aios callers grant {holder.caller.name} --model MODEL",
            )
        limit = limits[grant]
        if limit is not None and (wait := limit.take(now)):
            raise Overloaded(
                f"The rate of the key is spent: {holder.caller.name} may call {model} "
                f"{limit.rate:g} times a second.",
                code="rate_limited",
                retry_after=wait,
            )
        return holder.caller

    async def refresh(self) -> None:
        """Read keys and grants anew, in a thread.

        Raises:
            DatabaseUnavailable: They cannot be read; those that were read before go on to count.
        """
        asked = self._clock()
        try:
            rights = await asyncio.to_thread(call_rights, self._database)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(
                f"Keys and grants cannot be read from Postgres on {self._database.place}: "
                f"{type(error).__name__}.",
                remedy="Its log says why; they are read again in a moment.",
            ) from error
        self._take(rights, asked)

    def _take(self, rights: CallRights, asked: float) -> None:
        limits: dict[tuple[str, str], RateLimit] = {}
        allowed: dict[str, dict[str, RateLimit | None]] = {}
        rates: dict[str, dict[str, float | None]] = {}
        for grant in rights.grants:
            place, rate = (grant.principal, grant.model), grant.requests_per_second
            rates.setdefault(grant.principal, {})[grant.model] = rate
            if rate is not None:
                # What was used of the same rate stays used.
                before = self._limits.get(place)
                limits[place] = before if before and before.rate == rate else RateLimit(rate)
            allowed.setdefault(grant.principal, {})[grant.model] = limits.get(place)
        self._holders = {
            key.prefix: _Holder(
                hash=key.hash,
                caller=Caller(key.principal, MappingProxyType(rates.get(key.principal, {}))),
                expires=math.inf if key.seconds_left is None else asked + key.seconds_left,
                limits=allowed.get(key.principal, {}),
            )
            for key in rights.keys
        }
        self._limits, self._verified = limits, {}
        self._open, self._read_at = rights.open, asked

    def _without_key(self, now: float) -> Caller:
        if self._required or not self._open:
            if now - self._read_at > MAX_AGE_SECONDS:
                raise _unknown()
            raise RequestRefused(
                "The request has no API key.", code="unauthenticated", remedy=REMEDY
            )
        return ANONYMOUS

    def _verify(self, authorization: bytes, now: float) -> _Holder:
        key = ""
        if authorization[: len(_SCHEME)].lower() == _SCHEME:
            key = authorization[len(_SCHEME) :].decode("latin-1")
        prefix = prefix_of(key)
        holder = self._holders.get(prefix) if prefix is not None else None
        stored = holder.hash if holder is not None else "0" * 64
        if not hmac.compare_digest(stored_hash(proof_of(key)), stored) or holder is None:
            if wait := self._guesses.take(now):
                raise Overloaded(
                    "Wrong API keys come at too high a rate.", code="rate_limited", retry_after=wait
                )
            raise RequestRefused(
                "The API key is unknown here, has expired or was revoked.",
                code="unauthenticated",
                remedy=REMEDY,
            )
        self._verified[authorization] = holder
        return holder


def public_bind_allowed(database: Database) -> bool:
    """Whether the gateway may listen beyond this machine: somebody holds a valid key.

    Raises:
        DatabaseUnavailable: It cannot be told.
    """
    return bool(call_rights(database).keys)


def _unknown() -> RequestRefused:
    return RequestRefused(
        f"Who may call was last read more than {MAX_AGE_SECONDS / 60:.0f} minutes ago.",
        code="store_unreachable",
        remedy="The database does not answer; try again later.",
    )
