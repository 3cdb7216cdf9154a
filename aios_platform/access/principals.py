"""Principals, their roles, and who acts in this process.

An installation is *open* until its first key is issued: a laptop, whose user may do everything
(four eyes excepted). From then on a governed action needs the key of a principal that holds the
role. Who is added, what is granted and which key is issued are rows of the ledger; the database
refuses access rows without one.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field
from sqlalchemy import Connection, text

from aios_platform.access.changes import (
    exists,
    grant_role,
    issue_key,
    live_keys,
    lock,
    must_exist,
    record,
    revoke_calls,
    revoke_keys,
)
from aios_platform.contracts.record import Record, nearest
from aios_platform.database import Database
from aios_platform.database import database as process_database
from aios_platform.errors import AccessDenied
from aios_platform.ledger.identity import (
    DAGSTER_UI,
    SCHEDULER,
    SERVICES,
    Identity,
    authenticate,
    entered,
    identity,
)

__all__ = ["DAGSTER_UI", "SCHEDULER", "Principal", "Role", "acting", "acting_as", "require"]

_NAME = re.compile("[a-z][a-z0-9._-]{0,62}")


class Role(StrEnum):
    """What a principal may do; nobody has a role that was not granted."""

    AUTHOR = "author"
    """Train and register candidates, run the gate, promote what it lets pass."""
    APPROVER = "approver"
    """Decide on requests of others, grant waivers."""
    OPERATOR = "operator"
    """Roll back, promote what the gate lets pass, run schedules."""
    AUDITOR = "auditor"
    """Read everything, verify and anchor the ledger."""
    ADMIN = "admin"
    """Add principals, grant and revoke roles and keys."""


class Principal(Record):
    """Somebody, or a service, that acts."""

    name: str
    roles: frozenset[Role]


class Key(Record):
    """An API key, without its secret."""

    prefix: str = Field(description="The part of the key that is public.")
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Listed(Record):
    """A principal as `aios principals list` shows it."""

    name: str
    roles: frozenset[Role]
    keys: tuple[Key, ...]


def acting(database: Database | None = None) -> Principal:
    """Who acts in this process, with the roles that the database grants.

    Args:
        database: Where the principals are; default, the process's own.

    Raises:
        AccessDenied: AIOS_API_KEY is wrong, expired or revoked.
        DatabaseUnavailable: The principals cannot be read; that is never "everybody may".
    """
    with (database or process_database()).begin() as connection:
        return _principal(connection, identity(connection).name)


def require(*roles: Role | str, database: Database | None = None) -> Principal:
    """Who acts, if it holds one of the roles.

    Raises:
        AccessDenied: It holds none of them.
        DatabaseUnavailable: The principals cannot be read.
    """
    wanted = {Role(role) for role in roles}
    who = acting(database)
    if not who.roles & wanted:
        raise AccessDenied(
            f"{who.name} does not hold the role {' or '.join(sorted(wanted))}; it holds "
            f"{', '.join(sorted(who.roles)) or 'none'}.",
            remedy="Set AIOS_API_KEY to the key of a principal that holds it; an admin grants it "
            "with `aios principals grant NAME --role ROLE`.",
        )
    return who


@contextmanager
def acting_as(service: str) -> Iterator[None]:
    """Act as one of the platform's own services, whatever key the process has.

    Args:
        service: `SCHEDULER` (sensors and schedules) or `DAGSTER_UI` (launched in the web page).

    Raises:
        AccessDenied: It is no service.
    """
    if service not in SERVICES:
        raise AccessDenied(
            f"'{service}' is no service of the platform.",
            remedy=f"{nearest(service, SERVICES)} Principals act with their keys.",
        )
    with entered(Identity(service)):
        yield


@contextmanager
def acting_with(key: str) -> Iterator[None]:
    """Act as the principal of an API key; it is checked whenever something is written."""
    with entered(key):
        yield


def is_open(database: Database) -> bool:
    """Whether no key was ever issued, so that every user of the machine may do everything."""
    with database.begin() as connection:
        return _open(connection)


def add(
    database: Database,
    name: str,
    roles: Sequence[Role | str],
    *,
    expires_in: timedelta | None = None,
) -> str:
    """Add a principal; returns its key, which is stored nowhere and cannot be shown again.

    The first principal closes an open installation, so it must be an admin.

    Raises:
        AccessDenied: Who acts is no admin, the name is taken or malformed, or the first principal
            would not be an admin.
    """
    if not _NAME.fullmatch(name):
        raise AccessDenied(
            f"'{name}' cannot be a principal's name.",
            remedy="Use at most 63 lower-case letters, digits, '.', '_' or '-'; a letter first.",
        )
    granted = sorted({Role(role) for role in roles})
    with administration(database) as connection:
        if _open(connection) and Role.ADMIN not in granted:
            raise AccessDenied(
                f"The first principal, {name}, would not be an admin: nobody could add others.",
                remedy=f"aios principals add {name} --role admin",
            )
        if exists(connection, name):
            raise AccessDenied(
                f"There is a principal '{name}' already.",
                remedy="`aios principals grant` gives it roles, `rotate-key` a new key.",
            )
        row = record(connection, "principal_added", name, {"roles": granted})
        connection.execute(
            text("INSERT INTO principal (name, ledger_row) VALUES (:name, :row)"),
            {"name": name, "row": row},
        )
        for role in granted:
            grant_role(connection, name, role)
        return issue_key(connection, name, expires_in)


def grant(database: Database, name: str, role: Role | str) -> Principal:
    """Grant a role; granting it twice is the same as once.

    Raises:
        AccessDenied: Who acts is no admin, or there is no such principal.
    """
    with administration(database) as connection:
        must_exist(connection, name)
        if Role(role) not in _principal(connection, name).roles:
            grant_role(connection, name, Role(role))
        return _principal(connection, name)


def revoke(database: Database, name: str, role: Role | str | None = None) -> Principal:
    """Withdraw a role; without one, all roles, all keys and all calls.

    Raises:
        AccessDenied: Who acts is no admin, there is no such principal, or nobody who holds a
            valid key would be admin afterwards.
    """
    with administration(database) as connection:
        must_exist(connection, name)
        held = _principal(connection, name).roles
        ending = sorted(held if role is None else held & {Role(role)})
        # Recorded first: who withdraws their own rights needs them until the end.
        for each in ending:
            record(connection, "role_revoked", name, {"role": each})
        if role is None:
            revoke_calls(connection, name)
            revoke_keys(connection, name)
        connection.execute(
            text("DELETE FROM role_grant WHERE principal = :name AND role = ANY (:roles)"),
            {"name": name, "roles": [str(each) for each in ending]},
        )
        _keep_an_admin(connection)
        return _principal(connection, name)


def rotate_key(database: Database, name: str, *, expires_in: timedelta | None = None) -> str:
    """Revoke a principal's keys and issue another; an admin's right, and everybody's own.

    Raises:
        AccessDenied: Who acts is neither; or there is no such principal.
    """
    with database.begin() as connection:
        lock(connection)
        must_exist(connection, name)
        # Revoked last: the old key proves who rotates it.
        old = live_keys(connection, name)
        key = issue_key(connection, name, expires_in)
        revoke_keys(connection, name, old)
        return key


def principals(database: Database) -> list[Listed]:
    """All principals with their roles and keys, by name."""
    with database.begin() as connection:
        names = connection.execute(text("SELECT name FROM principal ORDER BY name")).scalars()
        return [
            Listed(
                name=name,
                roles=_principal(connection, name).roles,
                keys=tuple(
                    Key.model_validate(dict(row))
                    for row in connection.execute(
                        text(
                            "SELECT prefix, issued_at, expires_at, revoked_at FROM api_key "
                            "WHERE principal = :name ORDER BY issued_at DESC"
                        ),
                        {"name": name},
                    ).mappings()
                ),
            )
            for name in list(names)
        ]


def principal_of(database: Database, key: str) -> Principal:
    """The principal of an API key.

    Raises:
        AccessDenied: It is unknown, expired or revoked.
    """
    with database.begin() as connection:
        return _principal(connection, authenticate(connection, key).name)


@contextmanager
def administration(database: Database) -> Iterator[Connection]:
    """One change of who may do what at a time, by an admin.

    Raises:
        AccessDenied: Who acts is no admin.
    """
    with database.begin() as connection:
        lock(connection)
        who = _principal(connection, identity(connection).name)
        if Role.ADMIN not in who.roles:
            raise AccessDenied(
                f"{who.name} does not hold the role admin.",
                remedy="Set AIOS_API_KEY to the key of an admin (`aios principals list`).",
            )
        yield connection


def _principal(connection: Connection, name: str) -> Principal:
    held = connection.execute(
        text(
            "SELECT role FROM unnest(CAST(:roles AS text[])) AS role WHERE holds_role(:name, role)"
        ),
        {"roles": [str(role) for role in Role], "name": name},
    ).scalars()
    return Principal(name=name, roles=frozenset(Role(role) for role in held))


def _open(connection: Connection) -> bool:
    return not connection.execute(text("SELECT EXISTS (SELECT 1 FROM api_key)")).scalar()


def _keep_an_admin(connection: Connection) -> None:
    left = connection.execute(
        text(
            "SELECT EXISTS (SELECT 1 FROM role_grant JOIN api_key USING (principal) "
            "WHERE role = 'admin' AND revoked_at IS NULL AND expires_at IS NULL)"
        )
    ).scalar()
    if not left and not _open(connection):
        raise AccessDenied(
            "No admin with a key that does not expire would be left; nothing was changed.",
            remedy="Add another admin first: aios principals add NAME --role admin",
        )
