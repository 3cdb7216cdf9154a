"""Who acts, what they may do, and what becomes of their keys."""

import logging
import time
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from aios_platform import settings
from aios_platform.access import principals
from aios_platform.access.principals import Role, acting, acting_as, acting_with, add, require
from aios_platform.errors import AccessDenied, DatabaseUnavailable
from aios_platform.ledger.entries import append, entries
from aios_platform.ledger.identity import os_user
from aios_platform.ledger.verification import verify

pytestmark = [pytest.mark.postgres]


@pytest.fixture
def environment(monkeypatch):
    """Sets AIOS_API_KEY as a shell would."""

    def set_key(key: str | None) -> None:
        settings.settings.cache_clear()
        if key is None:
            monkeypatch.delenv("AIOS_API_KEY", raising=False)
        else:
            monkeypatch.setenv("AIOS_API_KEY", key)

    yield set_key
    monkeypatch.undo()
    settings.settings.cache_clear()


@pytest.fixture
def root(own_database) -> str:
    return add(own_database, "root", ["admin"])


def test_an_installation_without_keys_is_open_to_its_user(own_database):
    who = acting(own_database)
    assert (who.name, who.roles) == (os_user(), frozenset(Role))
    assert require("approver", database=own_database) == who
    assert principals.is_open(own_database)


def test_the_first_key_closes_it(own_database, root, environment):
    assert not principals.is_open(own_database)
    assert acting(own_database).roles == frozenset()
    with pytest.raises(AccessDenied, match="does not hold the role operator") as caught:
        require("operator", database=own_database)
    assert "AIOS_API_KEY" in caught.value.remedy
    environment(root)
    assert acting(own_database) == principals.Principal(name="root", roles=frozenset({"admin"}))
    assert require("operator", "admin", database=own_database).name == "root"


def test_the_first_principal_is_an_admin(own_database):
    with pytest.raises(AccessDenied, match="would not be an admin"):
        add(own_database, "ada", ["author"])
    assert principals.is_open(own_database)
    assert entries(own_database) == []


def test_a_wrong_key_never_falls_back_to_the_user(own_database, root, environment):
    spoilt = root[:-1] + ("A" if root[-1] != "A" else "B")
    unknown = "aios_" + "0" * 12 + root[17:]
    for key in (spoilt, unknown, "", "nonsense", root + "x"):
        environment(key)
        with pytest.raises(AccessDenied, match="API key"):
            acting(own_database)
        with pytest.raises(AccessDenied), own_database.begin() as connection:
            append(connection, kind="note", subject="m", payload={}, key="k")


def test_a_wrong_key_is_refused_in_an_open_installation_too(own_database, environment):
    environment("aios_000000000000_" + "A" * 43)
    with pytest.raises(AccessDenied, match="unknown"):
        acting(own_database)


def test_keys_expire(own_database, root):
    with acting_with(root):
        key = add(own_database, "ada", ["author"], expires_in=timedelta(seconds=0.3))
    with acting_with(key):
        assert acting(own_database).name == "ada"
        time.sleep(0.4)
        with pytest.raises(AccessDenied, match="of ada expired"):
            acting(own_database)


def test_a_revoked_principal_is_nobody_at_once(own_database, root):
    with acting_with(root):
        key = add(own_database, "ada", ["author", "approver"])
    with acting_with(root):
        left = principals.revoke(own_database, "ada", "author")
        assert left.roles == {Role.APPROVER}
        assert principals.revoke(own_database, "ada").roles == frozenset()
    with acting_with(key), pytest.raises(AccessDenied, match="of ada was revoked"):
        acting(own_database)


def test_a_key_is_rotated_by_its_owner_or_an_admin(own_database, root):
    with acting_with(root):
        first = add(own_database, "ada", ["author"])
        bob = add(own_database, "bob", ["author"])
    with acting_with(bob), pytest.raises(AccessDenied, match="keys of others"):
        principals.rotate_key(own_database, "ada")
    with acting_with(first):
        second = principals.rotate_key(own_database, "ada")
    with acting_with(root):
        third = principals.rotate_key(own_database, "ada")
    for old in (first, second):
        with acting_with(old), pytest.raises(AccessDenied, match="revoked"):
            acting(own_database)
    assert principals.principal_of(own_database, third).name == "ada"


def test_the_last_admin_stays(own_database, root):
    with acting_with(root):
        for role in (None, "admin"):
            with pytest.raises(AccessDenied, match="No admin"):
                principals.revoke(own_database, "root", role)
        add(own_database, "eve", ["admin"])
        principals.revoke(own_database, "root")
    with acting_with(root), pytest.raises(AccessDenied, match="revoked"):
        acting(own_database)


def test_only_an_admin_administers(own_database, root):
    with acting_with(root):
        ada = add(own_database, "ada", ["author", "approver", "operator", "auditor"])
    with acting_with(ada):
        for action in (
            lambda: add(own_database, "eve", ["admin"]),
            lambda: principals.grant(own_database, "ada", "admin"),
            lambda: principals.revoke(own_database, "root"),
        ):
            with pytest.raises(AccessDenied, match="does not hold the role admin"):
                action()
    with pytest.raises(AccessDenied, match="keys of others"):
        principals.rotate_key(own_database, "root")


def test_names_are_checked(own_database, root):
    with acting_with(root):
        for name in ("", "Ada", "user:ada", "service:scheduler", "a b", "a" * 64, "1a"):
            with pytest.raises(AccessDenied, match="cannot be a principal's name"):
                add(own_database, name, ["author"])
        with pytest.raises(AccessDenied, match="already"):
            add(own_database, "root", ["author"])
        with pytest.raises(AccessDenied, match=r"no principal 'rot'\. Did you mean 'root'"):
            principals.grant(own_database, "rot", "author")
        with pytest.raises(ValueError, match="chief"):
            principals.grant(own_database, "root", "chief")


def test_services_are_entered_on_purpose_and_never_approve(own_database, root, environment):
    environment(root)
    with acting_as(principals.SCHEDULER):
        who = acting(own_database)
        assert who.roles == {Role.AUTHOR, Role.OPERATOR}
        with own_database.begin() as connection:
            append(connection, kind="note", subject="m", payload={}, key="k")
    assert entries(own_database, kind="note")[0].principal == "service:scheduler"
    assert acting(own_database).name == "root"
    with pytest.raises(AccessDenied, match="no service"), acting_as("root"):
        pass


def test_what_changes_access_is_in_the_ledger_and_no_secret_is(own_database, caplog):
    caplog.set_level(logging.DEBUG)
    keys = [add(own_database, "root", ["admin"])]
    with acting_with(keys[0]):
        keys.append(add(own_database, "ada", ["author"]))
        principals.grant(own_database, "ada", "approver")
        principals.grant(own_database, "ada", "approver")
        principals.revoke(own_database, "ada", "author")
        keys.append(principals.rotate_key(own_database, "ada"))
    rows = entries(own_database)[::-1]
    assert [(row.principal, row.kind) for row in rows] == [
        (os_user(), "principal_added"), (os_user(), "role_granted"), (os_user(), "key_issued"),
        ("root", "principal_added"), ("root", "role_granted"), ("root", "key_issued"),
        ("root", "role_granted"), ("root", "role_revoked"),
        ("root", "key_issued"), ("root", "key_revoked"),
    ]  # fmt: skip
    with own_database.begin() as connection:
        stored = "".join(
            str(connection.execute(text(f"SELECT json_agg({t}) FROM {t}")).scalar())
            for t in ("ledger", "api_key", "principal", "role_grant")
        )
    for key in keys:
        secret = key.split("_", 2)[2]
        assert secret not in stored + caplog.text
        assert secret not in repr(settings.Settings(api_key=key))
    [ada, admin] = principals.principals(own_database)
    assert (ada.roles, len(ada.keys), admin.name) == ({Role.APPROVER}, 2, "root")
    assert verify(own_database).holds


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO principal VALUES ('eve', 1)",
        "INSERT INTO role_grant VALUES ('root', 'approver', 2)",
        "UPDATE role_grant SET role = 'approver'",
        "DELETE FROM role_grant",
        "INSERT INTO api_key VALUES ('p', 'root', 'h', now(), NULL, NULL, 3)",
        "UPDATE api_key SET hash = repeat('0', 64)",
        "UPDATE api_key SET revoked_at = now()",
        "DELETE FROM api_key",
        "DELETE FROM principal",
    ],
)
def test_access_does_not_change_without_a_row_of_the_ledger(own_database, root, statement):
    with pytest.raises(DBAPIError, match="no row of the ledger"), own_database.begin() as found:
        found.exec_driver_sql(statement)
    assert acting(own_database).roles == frozenset()


def test_a_row_of_the_ledger_that_grants_wants_an_admins_key(own_database, root):
    grants = (
        "INSERT INTO ledger (principal, kind, subject, payload_text, idempotency_key) VALUES "
        "('{}', 'role_granted', 'principal:root', '{{\"role\": \"approver\"}}', 'forged')"
    )
    for who, told in {"root": "Nothing proves", "user:root": "does not hold"}.items():
        with pytest.raises(DBAPIError, match=told), own_database.begin() as connection:
            connection.exec_driver_sql(grants.format(who))


def test_a_row_of_the_ledger_that_moves_traffic_wants_an_operators_key(own_database, root):
    with acting_with(root):
        ada = add(own_database, "ada", ["author", "approver"])
        bob = add(own_database, "bob", ["operator"])
    for key, allowed in ((ada, False), (root, False), (bob, True)):
        with acting_with(key), own_database.begin() as connection:
            row = {"kind": "rollout", "subject": "m", "payload": {}, "key": f"rollout:{allowed}"}
            if allowed:
                append(connection, **row)
            else:
                with pytest.raises(AccessDenied, match="does not hold the role operator"):
                    append(connection, **row)
    assert [row.principal for row in entries(own_database, kind="rollout")] == ["bob"]


def test_a_key_is_not_handed_to_servers(environment):
    environment("aios_secret")
    assert settings.settings().api_key.get_secret_value() == "aios_secret"
    assert "AIOS_API_KEY" not in settings.child_environment({"PORT": "1"})
    assert settings.child_environment({"PORT": "1"})["PORT"] == "1"


def test_no_answer_is_not_everybody_may(own_database):
    from aios_platform.database import Database, parse_server_url

    gone = Database(parse_server_url("postgresql://nobody@127.0.0.1:1/x"), embedded=False)
    with pytest.raises(DatabaseUnavailable):
        require("author", database=gone)
