import pytest
from sqlalchemy import text

from aios_platform.errors import AccessDenied, ApprovalError, DatabaseUnavailable, LedgerError
from aios_platform.ledger.entries import append, entries, entry, payload_of
from aios_platform.ledger.identity import os_user

pytestmark = [pytest.mark.postgres]


def add(database, **values):
    given = {"kind": "note", "subject": "m", "payload": {}, "key": "k"} | values
    with database.begin() as connection:
        return append(connection, **given)


def test_a_row_says_who_what_when_and_on_what_evidence(own_database):
    row = add(own_database, payload={"b": [1, 0.1, None], "a": "ö"}, evidence=["a" * 64])
    found = entry(own_database, row)
    assert found.principal == os_user()
    assert (found.kind, found.subject, found.key, found.clock) == ("note", "m", "k", None)
    assert found.evidence == ("a" * 64,)
    assert found.payload == {"b": [1, 0.1, None], "a": "ö"}
    assert found.previous == "0" * 64
    assert found.recorded_at.tzinfo is not None
    with own_database.begin() as connection:
        assert payload_of(connection, row) == found.payload
        stored = connection.execute(text("SELECT payload_text FROM ledger")).scalar()
    assert stored == '{"a":"ö","b":[1,0.1,null]}'


def test_an_append_with_the_same_key_is_one_row(own_database):
    assert add(own_database, payload={"n": 1}) == add(own_database, payload={"n": 2})
    [row] = entries(own_database)
    assert row.payload == {"n": 1}


def test_a_principal_can_be_named(own_database):
    assert entry(own_database, add(own_database, principal="user:x")).principal == "user:x"


def test_keys_that_were_no_text_are_chained_as_what_they_became(own_database):
    from aios_platform.ledger.verification import verify

    add(own_database, payload={"by": {10: "a", 9: "b"}})
    assert verify(own_database).holds


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), "\0", "\ud800", {1: "a", "b": 2}],
    ids=["nan", "infinity", "nul", "half a character", "keys of two kinds"],
)
def test_what_is_not_json_is_refused(own_database, value):
    with pytest.raises(LedgerError, match="is not JSON"):
        add(own_database, payload={"value": value})
    assert entries(own_database) == []


def test_text_that_only_looks_like_nul_is_not(own_database):
    assert entry(own_database, add(own_database, payload={"v": "\\u0000"})).payload == {
        "v": "\\u0000"
    }


def test_evidence_is_digests(own_database):
    for wrong in ("", "sha256:" + "0" * 64, "0" * 63, "G" * 64):
        with pytest.raises(LedgerError, match="not a SHA-256 digest"):
            add(own_database, evidence=[wrong])


def test_rows_are_found_by_subject_and_kind_newest_first(own_database):
    for number, (kind, subject) in enumerate([("a", "m"), ("b", "m"), ("a", "n"), ("a", "m")]):
        add(own_database, kind=kind, subject=subject, key=str(number))
    assert [row.seq for row in entries(own_database, kind="a", subject="m")] == [4, 1]
    assert [row.seq for row in entries(own_database, limit=2)] == [4, 3]
    with pytest.raises(LedgerError, match="has no row 5"):
        entry(own_database, 5)


def test_who_waits_too_long_for_another_writer_is_told_so(own_database):
    with own_database.begin() as connection:
        connection.exec_driver_sql("ALTER FUNCTION ledger_append SET lock_timeout = '100ms'")
    with own_database.begin() as first:
        append(first, kind="note", subject="m", payload={}, key="1")
        with pytest.raises(LedgerError, match="held the end of the ledger for too long"):
            add(own_database, key="2")
    assert [row.key for row in entries(own_database)] == ["1"]


def test_a_connection_that_breaks_before_the_commit_leaves_nothing(own_database):
    def twice() -> None:
        with own_database.begin() as connection:
            append(connection, kind="note", subject="m", payload={}, key="1")
            backend = connection.execute(text("SELECT pg_backend_pid()")).scalar()
            with own_database.maintenance() as other:
                other.execute(text(f"SELECT pg_terminate_backend({backend}, 5000)"))
            append(connection, kind="note", subject="m", payload={}, key="2")

    with pytest.raises(DatabaseUnavailable):
        twice()
    assert entries(own_database) == []
    assert add(own_database) == 1


def test_refusals_of_the_database_are_errors_of_ours(own_database):
    with pytest.raises(ApprovalError, match="no request 1"):
        add(own_database, kind="approval", payload={"request": 1, "approve": True})
    with pytest.raises(AccessDenied, match="service:scheduler does not hold") as caught:
        add(own_database, kind="waiver", principal="service:scheduler")
    assert "AIOS_API_KEY" in caught.value.remedy
