"""Changes of who may do what, each with its row of the ledger, inside the caller's transaction."""

import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, text

from aios_platform.contracts.record import nearest
from aios_platform.errors import AccessDenied
from aios_platform.ledger.entries import append
from aios_platform.ledger.identity import new_key


def lock(connection: Connection) -> None:
    """Wait until nobody else changes who may do what."""
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('access', 0))"))


def exists(connection: Connection, name: str) -> bool:
    """Whether there is a principal of this name."""
    found = text("SELECT EXISTS (SELECT 1 FROM principal WHERE name = :name)")
    return bool(connection.execute(found, {"name": name}).scalar())


def must_exist(connection: Connection, name: str) -> None:
    """Refuse the name of nobody.

    Raises:
        AccessDenied: There is no such principal.
    """
    if not exists(connection, name):
        names = connection.execute(text("SELECT name FROM principal")).scalars()
        raise AccessDenied(f"There is no principal '{name}'.", remedy=nearest(name, names))


def record(connection: Connection, kind: str, name: str, payload: dict[str, Any]) -> int:
    """Append a row about a principal; returns its number."""
    return append(
        connection,
        kind=kind,
        subject=f"principal:{name}",
        payload=payload,
        key=f"{kind}:{name}:{uuid.uuid4().hex}",
    )


def grant_role(connection: Connection, name: str, role: str) -> None:
    """Grant a role."""
    row = record(connection, "role_granted", name, {"role": role})
    connection.execute(
        text("INSERT INTO role_grant (principal, role, ledger_row) VALUES (:name, :role, :row)"),
        {"name": name, "role": role, "row": row},
    )


def issue_key(connection: Connection, name: str, expires_in: timedelta | None) -> str:
    """Issue a key; returns it, for the only time."""
    key, prefix, hashed = new_key()
    row = record(connection, "key_issued", name, {"prefix": prefix})
    connection.execute(
        text(
            "INSERT INTO api_key (prefix, principal, hash, expires_at, ledger_row) "
            "VALUES (:prefix, :name, :hash, clock_timestamp() + CAST(:life AS interval), :row)"
        ),
        {"prefix": prefix, "name": name, "hash": hashed, "life": expires_in, "row": row},
    )
    return key


def live_keys(connection: Connection, name: str) -> list[str]:
    """Prefixes of the keys that are not revoked."""
    found = text("SELECT prefix FROM api_key WHERE principal = :name AND revoked_at IS NULL")
    return list(connection.execute(found, {"name": name}).scalars())


def revoke_keys(connection: Connection, name: str, prefixes: list[str] | None = None) -> None:
    """Revoke these keys; by default all of a principal's."""
    live = live_keys(connection, name) if prefixes is None else prefixes
    for prefix in live:
        record(connection, "key_revoked", name, {"prefix": prefix})
    connection.execute(
        text("UPDATE api_key SET revoked_at = clock_timestamp() WHERE prefix = ANY (:prefixes)"),
        {"prefixes": live},
    )


def revoke_calls(connection: Connection, name: str, model: str | None = None) -> None:
    """Withdraw the right to call a model, or all that a principal may call."""
    held = connection.execute(
        text(
            "SELECT model FROM call_grant WHERE principal = :name "
            "AND (CAST(:model AS text) IS NULL OR model = :model) ORDER BY model"
        ),
        {"name": name, "model": model},
    ).scalars()
    for each in list(held):
        record(connection, "call_revoked", name, {"model": each})
        connection.execute(
            text("DELETE FROM call_grant WHERE principal = :name AND model = :model"),
            {"name": name, "model": each},
        )
