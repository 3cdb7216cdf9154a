"""Who may call which model through the gateway, and how often.

Only a grant lets a principal call; its roles do not, an admin's neither. Grants are rows of the
ledger, and the database refuses one that no row explains.
"""

import math
import re
from typing import NamedTuple

from pydantic import Field
from sqlalchemy import Connection, text

from aios_platform.access.changes import must_exist, record, revoke_calls
from aios_platform.access.principals import administration
from aios_platform.contracts.record import Record, nearest
from aios_platform.database import Database
from aios_platform.errors import AccessDenied

EVERY_MODEL = "*"
_MODEL = re.compile("[a-z][a-z0-9_]{0,62}")


class CallGrant(Record):
    """That a principal may call a model."""

    principal: str
    model: str = Field(description="A model, or * for every one.")
    requests_per_second: float | None = Field(
        default=None, gt=0, description="Most of them; null: no limit of its own."
    )


class CallingKey(NamedTuple):
    """A key that is neither revoked nor expired.

    Args:
        principal: Whose it is.
        prefix: The part of it that is public.
        hash: `ledger.identity.stored_hash` of its proof.
        seconds_left: Until it expires, by the database's clock; None: it does not.
    """

    principal: str
    prefix: str
    hash: str
    seconds_left: float | None


class CallRights(NamedTuple):
    """Everything that the gateway needs to know who may call, read at one moment.

    Args:
        open: Whether no key was ever issued.
        keys: The valid ones.
        grants: Of every principal.
    """

    open: bool
    keys: tuple[CallingKey, ...]
    grants: tuple[CallGrant, ...]


def grant(
    database: Database, name: str, model: str, requests_per_second: float | None = None
) -> CallGrant:
    """Let a principal call a model; granting it again sets its rate.

    Args:
        database: Where the principals are.
        name: The principal.
        model: Name of a model, or `*`; a grant of the model itself goes before one of `*`.
        requests_per_second: Most of them, per process of the gateway; None: no limit.

    Raises:
        AccessDenied: Who acts is no admin, there is no such principal, or model or rate cannot be.
    """
    if model != EVERY_MODEL and not _MODEL.fullmatch(model):
        raise AccessDenied(
            f"'{model}' cannot be a model's name.", remedy="`aios models` lists the declared ones."
        )
    rate = requests_per_second
    if rate is not None and not 0 < rate < math.inf:
        raise AccessDenied(
            f"{rate} requests per second is no rate for {name}.",
            remedy="Give a number above 0, or none for no limit.",
        )
    made = CallGrant(principal=name, model=model, requests_per_second=rate)
    with administration(database) as connection:
        must_exist(connection, name)
        if made in _grants(connection, name):
            return made
        values = {"model": model, "requests_per_second": rate}
        row = record(connection, "call_granted", name, values)
        connection.execute(
            text(
                "INSERT INTO call_grant (principal, model, requests_per_second, ledger_row) "
                "VALUES (:name, :model, :rate, :row) ON CONFLICT (principal, model) DO UPDATE "
                "SET requests_per_second = excluded.requests_per_second, "
                "ledger_row = excluded.ledger_row"
            ),
            {"name": name, "model": model, "rate": rate, "row": row},
        )
    return made


def revoke(database: Database, name: str, model: str | None = None) -> list[CallGrant]:
    """Withdraw a grant; without a model, all of a principal's. Returns those that are left.

    Raises:
        AccessDenied: Who acts is no admin, or there is no such principal or grant.
    """
    with administration(database) as connection:
        must_exist(connection, name)
        held = [each.model for each in _grants(connection, name)]
        if model is not None and model not in held:
            raise AccessDenied(
                f"There is no grant of '{model}' to {name}.", remedy=nearest(model, held)
            )
        revoke_calls(connection, name, model)
        return _grants(connection, name)


def grants(database: Database) -> list[CallGrant]:
    """All grants, by principal and model."""
    with database.begin() as connection:
        return _grants(connection)


def call_rights(database: Database) -> CallRights:
    """Who may call, in one look.

    Raises:
        DatabaseUnavailable: It cannot be read.
    """
    with database.begin() as connection:
        keys = connection.execute(
            text(
                "SELECT principal, prefix, hash, CAST(extract(epoch FROM expires_at "
                "- clock_timestamp()) AS double precision) AS seconds_left FROM api_key "
                "WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > "
                "clock_timestamp()) ORDER BY prefix"
            )
        ).all()
        issued = connection.execute(text("SELECT EXISTS (SELECT 1 FROM api_key)")).scalar()
        return CallRights(
            open=not issued,
            keys=tuple(CallingKey(*row) for row in keys),
            grants=tuple(_grants(connection)),
        )


def _grants(connection: Connection, name: str | None = None) -> list[CallGrant]:
    rows = connection.execute(
        text(
            "SELECT principal, model, requests_per_second FROM call_grant "
            "WHERE CAST(:name AS text) IS NULL OR principal = :name ORDER BY principal, model"
        ),
        {"name": name},
    ).mappings()
    return [CallGrant.model_validate(dict(row)) for row in rows]
