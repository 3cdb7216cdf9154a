"""Whatever is done to the rows behind the ledger's back is found, and the place is named."""

import json
import threading
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from aios_platform.access.principals import acting_with, add, revoke
from aios_platform.errors import LedgerBroken, LedgerError
from aios_platform.ledger.anchors import Anchor, anchor, anchors, name_of, parse
from aios_platform.ledger.chain import lines, write_lines
from aios_platform.ledger.entries import append, entries
from aios_platform.ledger.verification import Fault, verify, verify_file

pytestmark = [pytest.mark.postgres]

HEAD = (
    "UPDATE ledger_head SET (seq, hash) = (SELECT seq, hash FROM ledger ORDER BY seq DESC LIMIT 1)"
)
REHASH = (
    "UPDATE ledger SET hash = encode(sha256(convert_to(ledger_content(ledger), 'UTF8')), 'hex') "
    "WHERE seq = {}"
)


def tamper(database, *statements: str) -> None:
    with database.tampering() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture
def ledger(own_database, write):
    write(own_database, 8)
    return own_database


def test_an_untouched_ledger_holds(ledger):
    found = verify(ledger)
    assert (found.holds, found.rows, found.first, found.last) == (True, 8, 1, 8)
    assert found.hash == entries(ledger, limit=1)[0].hash
    found.require()


def test_an_empty_ledger_holds(own_database, store):
    assert verify(own_database).holds
    assert anchor(own_database, store) is None


@pytest.mark.parametrize(
    ("statements", "seq", "fault"),
    [
        (["UPDATE ledger SET payload_text = '{\"number\":9}' WHERE seq = 4"], 4, "altered"),
        (["UPDATE ledger SET principal = 'somebody' WHERE seq = 1"], 1, "altered"),
        (["UPDATE ledger SET recorded_at = recorded_at + interval '1 us' WHERE seq = 8"], 8,
         "altered"),
        (["UPDATE ledger SET recorded_at = 'infinity' WHERE seq = 2"], 2, "altered"),
        (["UPDATE ledger SET evidence = '{}' WHERE seq = 3"], 3, "altered"),
        (["UPDATE ledger SET subject = 'n' WHERE seq = 4", REHASH.format(4)], 5, "replaced"),
        (["UPDATE ledger SET subject = 'n' WHERE seq = 8", REHASH.format(8)], 8, "head"),
        (["DELETE FROM ledger WHERE seq = 5"], 5, "missing"),
        (["DELETE FROM ledger WHERE seq = 1"], 1, "missing"),
        (["DELETE FROM ledger WHERE seq BETWEEN 3 AND 5"], 3, "missing"),
        (["UPDATE ledger SET seq = 0 WHERE seq = 3", "UPDATE ledger SET seq = 3 WHERE seq = 4",
          "UPDATE ledger SET seq = 4 WHERE seq = 0"], 3, "order"),
        (["DELETE FROM ledger WHERE seq > 6"], 7, "truncated"),
        (["TRUNCATE ledger"], 1, "truncated"),
        (["UPDATE ledger_head SET seq = 9"], 9, "truncated"),
        (["UPDATE ledger_head SET hash = repeat('0', 64)"], 8, "head"),
        (["DELETE FROM ledger_head"], 8, "head"),
        (["ALTER TABLE ledger ALTER COLUMN payload DROP EXPRESSION",
          "UPDATE ledger SET payload = '{\"number\": 99}' WHERE seq = 6"], 6, "altered"),
    ],
)  # fmt: skip
def test_the_first_broken_link_is_named(ledger, statements, seq, fault):
    tamper(ledger, *statements)
    found = verify(ledger)
    assert (found.broken.seq, found.broken.fault) == (seq, fault)
    assert found.rows < 8 or found.last == 8
    with pytest.raises(LedgerBroken, match=f"broken at row {seq} \\({fault}\\)"):
        found.require()


def test_a_tail_cut_off_together_with_the_head_is_found_by_an_anchor(ledger, store, write):
    made = anchor(ledger, store)
    assert made.seq == 8
    tamper(ledger, "DELETE FROM ledger WHERE seq > 6", HEAD)
    assert verify(ledger).holds, "without the anchor nobody could tell"
    found = verify(ledger, anchors(store))
    assert (found.broken.seq, found.broken.fault) == (7, Fault.TRUNCATED)
    # Nor does it help to write as many rows again.
    write(ledger, 4, first=20)
    found = verify(ledger, anchors(store))
    assert (found.broken.seq, found.broken.fault) == (8, Fault.REWRITTEN)
    with pytest.raises(LedgerBroken, match="Row 8, anchored at"):
        anchor(ledger, store)


def test_a_chain_made_anew_from_some_row_on_is_bracketed_by_anchors(own_database, store, write):
    for first in (1, 4, 7):
        write(own_database, 3, first=first)
        anchor(own_database, store)
    assert verify(own_database, anchors(store)).anchors == 3
    again = ["UPDATE ledger SET subject = 'n' WHERE seq = 5", REHASH.format(5)]
    for seq in range(6, 10):
        again += [
            "UPDATE ledger SET previous = "
            f"(SELECT hash FROM ledger WHERE seq = {seq - 1}) WHERE seq = {seq}",
            REHASH.format(seq),
        ]
    tamper(own_database, *again, HEAD)
    assert verify(own_database).holds
    found = verify(own_database, anchors(store))
    assert (found.broken.seq, found.broken.fault, found.anchors) == (6, Fault.REWRITTEN, 1)


def test_anchors_are_written_once(ledger, store, write):
    first = anchor(ledger, store)
    assert anchor(ledger, store) == first
    assert not store.write_once(name_of(8), b"{}")
    assert anchors(store) == [first]
    write(ledger, 1, first=9)
    assert [made.seq for made in [*anchors(store), anchor(ledger, store)]] == [8, 9]
    assert (parse(first.short).seq, parse(first.short).hash) == (first.seq, first.hash)


@pytest.mark.parametrize("value", ["", "8", "8:abc", "x:" + "0" * 64, "0:" + "0" * 64])
def test_what_is_no_anchor_is_refused(value):
    with pytest.raises(LedgerError, match="is not an anchor"):
        parse(value)


def test_an_anchor_that_cannot_be_read_is_not_taken_for_none(ledger, store):
    anchor(ledger, store)
    store.write_named(name_of(9), b"{")
    with pytest.raises(LedgerError, match="cannot be read"):
        anchors(store)


def test_an_anchor_of_a_broken_ledger_is_not_made(ledger, store):
    tamper(ledger, "UPDATE ledger SET subject = 'n' WHERE seq = 3")
    with pytest.raises(LedgerBroken):
        anchor(ledger, store)
    assert anchors(store) == []


def test_guards_that_are_off_and_champions_unexplained_are_found(own_database, judge, swap):
    swap(own_database, judge("m"))
    with own_database.tampering() as connection:
        connection.execute(text("UPDATE champion SET version = '7'"))
    assert "champion of m, version 7" in verify(own_database).findings[0]
    with own_database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE ledger ENABLE TRIGGER ledger_append_only"))
        connection.execute(text("DROP TRIGGER recorded ON champion"))
    found = verify(own_database)
    assert found.broken is None
    assert not found.holds
    told = " ".join(found.findings)
    assert "ledger is not guarded: ledger_append_only" in told
    assert "champion is not guarded: recorded" in told
    with pytest.raises(LedgerBroken, match="not guarded"):
        found.require()


def test_a_function_that_was_replaced_is_found(own_database):
    with own_database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION ledger_admit(entry ledger) RETURNS void LANGUAGE sql AS ''"
        )
        connection.exec_driver_sql("DROP FUNCTION has_proof")
    told = verify(own_database).findings
    assert told == (
        "The function has_proof is not the one that was installed.",
        "The function ledger_admit is not the one that was installed.",
    )


def test_rights_that_no_row_explains_are_found(own_database):
    key = add(own_database, "root", ["admin"])
    with acting_with(key):
        add(own_database, "ada", ["author"])
        add(own_database, "bob", ["author"])
        revoke(own_database, "bob")
    assert verify(own_database).holds
    with own_database.engine.begin() as connection:
        # A superuser who switches the guards on again when done.
        for table in ("role_grant", "api_key"):
            connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER recorded")
        connection.exec_driver_sql("INSERT INTO role_grant VALUES ('ada', 'approver', 1)")
        connection.exec_driver_sql("DELETE FROM role_grant WHERE principal = 'root'")
        connection.exec_driver_sql(
            "INSERT INTO api_key VALUES ('made', 'ada', 'h', now(), NULL, NULL, 1)"
        )
        connection.exec_driver_sql("UPDATE api_key SET revoked_at = NULL WHERE principal = 'bob'")
        for table in ("role_grant", "api_key"):
            connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER recorded")
    told = "\n".join(verify(own_database).findings)
    for right in (
        "ada and the role approver", "root and the role admin", "ada and the key made",
        "bob and the key ",
    ):  # fmt: skip
        assert right in told
    assert told.count("\n") == 3


def test_an_export_is_verified_without_the_database(ledger, tmp_path):
    whole, later = tmp_path / "all.jsonl", tmp_path / "later.jsonl"
    assert write_lines(ledger, whole) == 8
    assert write_lines(ledger, later, after=5) == 3
    head = entries(ledger, limit=1)[0]
    made = Anchor(seq=8, hash=head.hash, made_at=head.recorded_at)
    found = verify_file(whole, [made])
    assert (found.holds, found.rows, found.anchors, found.hash) == (True, 8, 1, head.hash)
    found = verify_file(later, [made])
    assert (found.holds, found.first, found.begins_after[:4]) == (
        True, 6, entries(ledger, limit=4)[-1].hash[:4],
    )  # fmt: skip
    rows = [json.loads(line) for line in whole.read_bytes().splitlines()]
    assert [row["payload"]["number"] for row in rows] == list(range(1, 9))


@pytest.mark.parametrize(
    ("change", "seq", "fault"),
    [
        (lambda rows: [*rows[:3], rows[3].replace(b'"subject":"m"', b'"subject":"n"'), *rows[4:]],
         4, "altered"),
        (lambda rows: rows[:2] + rows[3:], 3, "missing"),
        (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], 2, "missing"),
        (lambda rows: [*rows[:4], rows[2], *rows[4:]], 3, "order"),
        (lambda rows: rows[:-1], 8, "truncated"),
    ],
)  # fmt: skip
def test_a_manipulated_export_is_found(ledger, tmp_path, change, seq, fault):
    file = tmp_path / "export.jsonl"
    file.write_bytes(b"".join(change(list(lines(ledger)))))
    head = entries(ledger, limit=1)[0]
    found = verify_file(file, [Anchor(seq=8, hash=head.hash, made_at=head.recorded_at)])
    assert (found.broken.seq, found.broken.fault) == (seq, fault)


@pytest.mark.parametrize("content", [b"x\n", b"{}\n", b"[1]\n", b'{"seq": 1, "hash": "0"}\n'])
def test_what_is_no_export_is_refused(tmp_path, content):
    file = tmp_path / "export.jsonl"
    file.write_bytes(content)
    with pytest.raises(LedgerBroken, match="Line 1 is not a row"):
        verify_file(file)


def test_fifty_writers_make_one_chain_and_lose_nothing(own_database):
    writers, rows = 50, 100
    barrier, failed = threading.Barrier(writers), []

    def write(writer: int) -> None:
        barrier.wait()
        try:
            with own_database.engine.connect() as connection:
                for number in range(rows):
                    with connection.begin():
                        append(
                            connection,
                            kind="note",
                            subject=f"m{writer}",
                            payload={"number": number},
                            key=f"{writer}:{number}",
                        )
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    found = verify(own_database)
    assert (found.holds, found.rows, found.last) == (True, writers * rows, writers * rows)
    with own_database.begin() as connection:
        counted = connection.execute(
            text("SELECT count(DISTINCT previous), count(DISTINCT idempotency_key) FROM ledger")
        ).one()
    assert tuple(counted) == (writers * rows, writers * rows)


def test_a_transaction_that_is_given_up_leaves_no_gap(ledger, write):
    with ledger.engine.connect() as connection:
        append(connection, kind="note", subject="m", payload={}, key="given up")
        connection.rollback()
    write(ledger, 2, first=9)
    assert verify(ledger).last == 10


def test_a_clock_that_was_set_back_is_noted_and_time_does_not_run_backwards(ledger, write, caplog):
    tamper(ledger, "UPDATE ledger_head SET recorded_at = recorded_at + interval '1 hour'")
    write(ledger, 1, first=9)
    assert "The server's clock" in caplog.text
    newest, before = entries(ledger, limit=2)
    assert newest.recorded_at > before.recorded_at
    assert newest.clock < newest.recorded_at
    found = verify(ledger)
    assert (found.holds, found.clock_set_back) == (True, 1)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(
        st.tuples(
            st.dictionaries(st.text('aé"\\\n\x1f\x7f ', max_size=4), _JSON, max_size=3),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_is_written_verifies_here_and_from_its_export(own_database, tmp_path, rows):
    with own_database.begin() as connection:
        for payload, word in rows:
            append(
                connection, kind=word, subject=word, payload=payload,
                key=word + uuid.uuid4().hex,
            )  # fmt: skip
    found = verify(own_database)
    assert found.holds, found
    write_lines(own_database, tmp_path / "export")
    assert verify_file(tmp_path / "export").hash == found.hash
    assert entries(own_database, limit=1)[0].payload == rows[-1][0]
