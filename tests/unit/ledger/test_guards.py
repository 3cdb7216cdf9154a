"""What the database itself refuses, whoever asks and with whatever program."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from aios_platform.ledger.champions import promote
from aios_platform.ledger.entries import entries
from aios_platform.ledger.verification import verify
from tests.databases import ScratchDatabase
from tests.verdicts import verdict

pytestmark = [pytest.mark.postgres]


@pytest.fixture(scope="module")
def owned(database):
    """A ledger whose tables belong to an ordinary role, as on a server of one's own."""
    superuser = ScratchDatabase(database, "owned")
    with superuser.maintenance() as connection:
        connection.execute(text("CREATE ROLE landlord LOGIN"))
    ordinary = ScratchDatabase(database, "owned", user="landlord")
    superuser.create(template="template0", owner="landlord")
    ordinary.migrate()
    yield ordinary
    ordinary.close()
    superuser.drop()
    with superuser.maintenance() as connection:
        connection.execute(text("DROP ROLE landlord"))


@pytest.fixture(scope="module")
def filled(owned):
    promote(
        owned, verdict("m"), model_digest="d" * 64, run_id="r", training_set_digest="7" * 64,
        trained_through="2013-09",
    )  # fmt: skip
    return owned


REFUSED = [
    "UPDATE ledger SET principal = 'x'",
    "UPDATE ledger SET hash = repeat('0', 64) WHERE seq = 1",
    "DELETE FROM ledger",
    "DELETE FROM ledger WHERE false",
    "TRUNCATE ledger",
    "UPDATE ledger_head SET hash = repeat('0', 64)",
    "INSERT INTO ledger_head SELECT true, 0, '', now()",
    "DELETE FROM ledger_head",
    "TRUNCATE ledger_head",
    "UPDATE champion SET version = '2'",
    "INSERT INTO champion VALUES ('n', 1, '1', '{}')",
    "DELETE FROM champion",
    "TRUNCATE champion",
    "INSERT INTO principal VALUES ('eve', 1)",
    "INSERT INTO approval_code VALUES ('0', 1, 'eve', now())",
    "TRUNCATE principal CASCADE",
    "TRUNCATE api_key",
    "TRUNCATE role_grant",
    "TRUNCATE approval_code",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_the_owner_of_the_tables_may_only_append(filled, statement):
    with pytest.raises(DBAPIError, match="refused"), filled.begin() as connection:
        connection.exec_driver_sql(statement)
    assert verify(filled).holds
    assert len(entries(filled)) == 1


@pytest.mark.parametrize("statement", REFUSED)
def test_a_replication_session_of_a_superuser_is_refused_too(filled, database, statement):
    superuser = ScratchDatabase(database, filled.name)
    with superuser.engine.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        with pytest.raises(DBAPIError, match="refused"):
            connection.exec_driver_sql(statement)
    superuser.close()


def test_the_owner_cannot_open_a_replication_session(filled):
    with pytest.raises(DBAPIError, match="permission denied"), filled.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))


def test_what_somebody_says_about_number_time_and_chain_is_not_believed(filled):
    with filled.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO ledger (seq, recorded_at, principal, kind, subject, payload_text, "
                "idempotency_key, previous, hash) VALUES (77, '2001-01-01', 'somebody', 'note', "
                "'m', '{}', 'by hand', 'x', 'y')"
            )
        )
    row = entries(filled, kind="note")[0]
    assert row.seq == 2
    assert row.recorded_at.year > 2020
    assert verify(filled).holds
    with filled.begin() as connection:
        connection.execute(
            text("INSERT INTO ledger (principal, kind, subject, payload_text, idempotency_key) "
                 "SELECT 'somebody', 'note', 'm', '{}', 'bulk ' || n FROM generate_series(1, 5) n")
        )  # fmt: skip
    assert verify(filled).last == 7
    with pytest.raises(DBAPIError, match="json"), filled.begin() as connection:
        connection.execute(
            text("INSERT INTO ledger (principal, kind, subject, payload_text, idempotency_key) "
                 "VALUES ('somebody', 'note', 'm', '{', 'no json')")
        )  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "evidence"),
    [
        ("[]", "{}"),
        ("null", "{}"),
        ('{"a":\n1}', "{}"),
        ("{}", "{NULL}"),
        ("{}", "{abc}"),
        ("{}", "{{" + "a" * 64 + "},{" + "a" * 64 + "}}"),
    ],
)
def test_a_row_that_no_reader_could_read_is_refused(filled, payload, evidence):
    with pytest.raises(DBAPIError, match="violates check"), filled.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO ledger (principal, kind, subject, payload_text, evidence, "
                "idempotency_key) VALUES ('x', 'note', 'm', :payload, :evidence, 'unreadable')"
            ),
            {"payload": payload, "evidence": evidence},
        )
    assert verify(filled).holds


def test_a_table_that_shadows_ours_changes_nothing(filled):
    with filled.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE api_key (LIKE api_key)")
        connection.exec_driver_sql(
            "CREATE TEMP TABLE ledger_head AS SELECT true AS one, 0::bigint AS seq, "
            "'forged' AS hash, now() AS recorded_at"
        )
        connection.exec_driver_sql(
            "INSERT INTO ledger (principal, kind, subject, payload_text, idempotency_key) "
            "VALUES ('somebody', 'note', 'm', '{}', 'shadow')"
        )
    filled.close()
    assert entries(filled, limit=1)[0].previous != "forged"
    assert verify(filled).holds
