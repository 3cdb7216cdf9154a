"""Who acts: what the ledger writes into every row, and what proves it.

A process acts as the principal of its API key (`AIOS_API_KEY`), or as a service that it entered
on purpose, or, without a key, as the user of the operating system. What that identity may do is
for `aios_platform.access` and for the database to say.
"""

import getpass
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from sqlalchemy import Connection, text

from aios_platform.errors import AccessDenied
from aios_platform.settings import settings

SCHEDULER = "service:scheduler"
DAGSTER_UI = "service:dagster_ui"
SERVICES = (SCHEDULER, DAGSTER_UI)

_KEY = re.compile(r"aios_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
REMEDY = "Set AIOS_API_KEY to a key that is valid; an admin issues one: `aios principals --help`."


@dataclass(frozen=True)
class Identity:
    """Who acts, and what proves it to the database.

    Args:
        name: The principal's name, as in the ledger.
        proof: For the trigger that admits governed rows; never shown.
    """

    name: str
    proof: str = field(default="", repr=False)


_entered: ContextVar[Identity | str | None] = ContextVar("acting", default=None)


def identity(connection: Connection) -> Identity:
    """The identity of the caller.

    Raises:
        AccessDenied: There is a key, and it is wrong, expired or revoked. It never falls back to
            the user of the operating system.
    """
    entered = _entered.get()
    if isinstance(entered, Identity):
        return entered
    key = entered
    if key is None and (configured := settings().api_key) is not None:
        key = configured.get_secret_value()
    return Identity(os_user()) if key is None else authenticate(connection, key)


@contextmanager
def entered(who: Identity | str) -> Iterator[None]:
    """Act as a service (an `Identity`), or as the principal of an API key (a string)."""
    token = _entered.set(who)
    try:
        yield
    finally:
        _entered.reset(token)


def os_user() -> str:
    """The user of the operating system, as a principal's name."""
    try:
        return f"user:{getpass.getuser()}"
    except (KeyError, OSError):
        return "user:unknown"


def new_key() -> tuple[str, str, str]:
    """A fresh API key.

    Returns:
        The key (32 random bytes, to be shown once), its prefix (public, for finding it), and the
        hash to store.
    """
    prefix = secrets.token_hex(6)
    key = f"aios_{prefix}_{secrets.token_urlsafe(32)}"
    return key, prefix, stored_hash(proof_of(key))


def prefix_of(key: str) -> str | None:
    """The public part of an API key; None where it does not have the form of one."""
    matched = _KEY.fullmatch(key.strip())
    return matched[1] if matched else None


def authenticate(connection: Connection, key: str) -> Identity:
    """The principal of an API key.

    Raises:
        AccessDenied: Unknown, expired or revoked. The key is not repeated.
    """
    prefix = prefix_of(key)
    if prefix is None:
        raise AccessDenied("The API key is not one of ours: it has another form.", remedy=REMEDY)
    row = connection.execute(
        text(
            "SELECT principal, hash, revoked_at, expires_at, "
            "expires_at <= clock_timestamp() AS expired FROM api_key WHERE prefix = :prefix"
        ),
        {"prefix": prefix},
    ).one_or_none()
    proof = proof_of(key.strip())
    # Compared even where there is no such prefix, so that time tells nothing.
    stored = row.hash if row is not None else "0" * 64
    if not hmac.compare_digest(stored_hash(proof), stored) or row is None:
        raise AccessDenied("The API key is unknown to this installation.", remedy=REMEDY)
    if row.revoked_at is not None:
        raise AccessDenied(f"The API key {prefix} of {row.principal} was revoked.", remedy=REMEDY)
    if row.expired:
        raise AccessDenied(
            f"The API key {prefix} of {row.principal} expired at {row.expires_at:%Y-%m-%d}.",
            remedy=REMEDY,
        )
    return Identity(str(row.principal), proof)


def proof_of(secret: str) -> str:
    """What a transaction shows to the database instead of the secret itself."""
    return hashlib.sha256(secret.encode()).hexdigest()


def stored_hash(proof: str) -> str:
    """What the database stores: it does not give away the proof."""
    return hashlib.sha256(proof.encode()).hexdigest()
