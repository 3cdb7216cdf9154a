"""Who may call which model: granted by admins only, on the ledger, and kept by the database."""

import math

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from aios_platform.access import callers, principals
from aios_platform.access.callers import CallGrant, call_rights, grants
from aios_platform.access.principals import acting_with, add
from aios_platform.components.model_lifecycle.explanation import explain
from aios_platform.errors import AccessDenied
from aios_platform.ledger.entries import entries
from aios_platform.ledger.verification import verify

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def root(own_database) -> str:
    """An admin's key; `shop` may call the model m."""
    key = add(own_database, "root", ["admin"])
    with acting_with(key):
        add(own_database, "shop", [])
        callers.grant(own_database, "shop", "m", 10)
    return key


def test_what_is_granted_is_listed_recorded_and_explained(own_database, root):
    with acting_with(root):
        callers.grant(own_database, "shop", "m", 0.1)
        callers.grant(own_database, "shop", "m", 0.1)
        callers.grant(own_database, "root", "*")
        assert callers.revoke(own_database, "shop", "m") == []
        callers.grant(own_database, "shop", "n")
    assert grants(own_database) == [
        CallGrant(principal="root", model="*"),
        CallGrant(principal="shop", model="n"),
    ]
    rows = entries(own_database)[4::-1]
    assert [(row.kind, row.principal) for row in rows] == [
        ("call_granted", "root"), ("call_granted", "root"), ("call_granted", "root"),
        ("call_revoked", "root"), ("call_granted", "root"),
    ]  # fmt: skip
    told = [explain(row) for row in rows]
    assert "may call the model m through the gateway, at most 10 times" in told[0]
    assert "at most 0.1 times a second" in told[1]
    assert "may call every model through the gateway, at any rate" in told[2]
    assert "may no longer call the model m" in told[3]
    assert verify(own_database).holds


def test_only_an_admin_grants_and_only_what_there_is(own_database, root):
    with pytest.raises(AccessDenied, match="does not hold the role admin"):
        callers.grant(own_database, "shop", "n")
    with pytest.raises(AccessDenied, match="does not hold the role admin"):
        callers.revoke(own_database, "shop")
    with acting_with(root):
        with pytest.raises(AccessDenied, match="Did you mean 'shop'"):
            callers.grant(own_database, "shpo", "m")
        with pytest.raises(AccessDenied, match=r"no grant of 'n' to shop\. Valid: m"):
            callers.revoke(own_database, "shop", "n")
        for model in ("", "M", "m*", "a" * 64):
            with pytest.raises(AccessDenied, match="cannot be a model's name"):
                callers.grant(own_database, "shop", model)
        for rate in (0, -1, math.inf, math.nan):
            with pytest.raises(AccessDenied, match="is no rate for shop"):
                callers.grant(own_database, "shop", "m", rate)
    assert len(grants(own_database)) == 1


def test_who_loses_everything_calls_nothing_with_a_new_key_either(own_database, root):
    with acting_with(root):
        principals.revoke(own_database, "shop")
        assert [key.principal for key in call_rights(own_database).keys] == ["root"]
        principals.rotate_key(own_database, "shop")
    assert grants(own_database) == []
    assert verify(own_database).holds


def test_an_admin_who_calls_can_give_everything_up(own_database, root):
    with acting_with(root):
        callers.grant(own_database, "root", "*")
        add(own_database, "eve", ["admin"])
        principals.revoke(own_database, "root")
    assert [grant.principal for grant in grants(own_database)] == ["shop"]
    assert verify(own_database).holds


def test_the_gateway_is_told_the_valid_keys_only(own_database, root):
    assert not call_rights(own_database).open
    with acting_with(root):
        old = call_rights(own_database).keys
        principals.rotate_key(own_database, "shop")
    rights = call_rights(own_database)
    assert {key.principal for key in rights.keys} == {"root", "shop"}
    assert {key.prefix for key in rights.keys} != {key.prefix for key in old}
    assert all(key.seconds_left is None for key in rights.keys)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO call_grant VALUES ('root', 'm', NULL, 1)",
        "UPDATE call_grant SET requests_per_second = NULL",
        "UPDATE call_grant SET model = '*'",
        "UPDATE call_grant SET principal = 'root'",
        "DELETE FROM call_grant",
        "TRUNCATE call_grant",
    ],
)
def test_a_grant_does_not_change_without_a_row_of_the_ledger(own_database, root, statement):
    with pytest.raises(DBAPIError, match="no row of the ledger"), own_database.begin() as found:
        found.exec_driver_sql(statement)


def test_a_grant_that_was_withdrawn_cannot_be_put_back_on_its_old_row(own_database, root):
    with own_database.begin() as connection:
        row = connection.execute(text("SELECT ledger_row FROM call_grant")).scalar_one()
    with acting_with(root):
        callers.revoke(own_database, "shop")
    with pytest.raises(DBAPIError, match="no row of the ledger"), own_database.begin() as found:
        found.exec_driver_sql(f"INSERT INTO call_grant VALUES ('shop', 'm', 10, {row})")


def test_a_row_that_grants_calls_wants_an_admins_key(own_database, root):
    grant = (
        "INSERT INTO ledger (principal, kind, subject, payload_text, idempotency_key) VALUES "
        "('{}', '{}', 'principal:shop', '{{\"model\": \"*\"}}', 'forged')"
    )
    for kind in ("call_granted", "call_revoked"):
        for who, told in {"root": "Nothing proves", "shop": "does not hold"}.items():
            with pytest.raises(DBAPIError, match=told), own_database.begin() as connection:
                connection.exec_driver_sql(grant.format(who, kind))


def test_a_grant_that_no_row_explains_is_found(own_database, root):
    with own_database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE call_grant DISABLE TRIGGER recorded")
        connection.exec_driver_sql("INSERT INTO call_grant VALUES ('root', '*', NULL, 1)")
        connection.exec_driver_sql(
            "UPDATE call_grant SET requests_per_second = 11 WHERE model = 'm'"
        )
        connection.exec_driver_sql("ALTER TABLE call_grant ENABLE ALWAYS TRIGGER recorded")
    assert verify(own_database).findings == (
        "What the ledger says of root and calls of * is not what is there.",
        "What the ledger says of shop and calls of m is not what is there.",
    )
    with own_database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER recorded ON call_grant")
    assert "The table call_grant is not guarded: recorded" in verify(own_database).findings[0]
