"""What is offered is written once or counted as lost, whatever becomes of the database."""

import logging
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from aios_platform.alerts.outbox import alerts
from aios_platform.errors import DatabaseUnavailable
from aios_platform.monitoring.served_content import decode
from aios_platform.serving.recording import Minute, Recorder
from tests.databases import ScratchDatabase
from tests.unit.serving.traffic import AT, SCHEMA, batch, item, pair

pytestmark = pytest.mark.postgres
MINUTE = Minute("toy", "1", "live", 3, 1, 1, 30, 0.5, 0.25, 9.0, 4.0, failures=2)


@pytest.fixture
def recorder(own_database):
    made = []

    def make(**options):
        made.append(Recorder(own_database, **({"flush_seconds": 0.02} | options)))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close(2)


def read(database, statement):
    with database.begin() as connection:
        return connection.execute(text(statement)).all()


def recorded(database):
    """Request and row of everything that was written, in the order of writing."""
    found = []
    for (content,) in read(database, "SELECT content FROM served_batch ORDER BY id"):
        answers = decode(content).answers
        found += zip(answers["request_id"].to_pylist(), answers["place"].to_pylist(), strict=True)
    return found


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@contextmanager
def gone(database):
    """The server drops every connection to the database and takes no new one."""
    with database.maintenance() as connection:
        connection.execute(text(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": database.name},
        )
    try:
        yield
    finally:
        with database.maintenance() as connection:
            connection.execute(text(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true"))


def test_everything_is_written_in_one_transaction_per_flush(recorder, own_database):
    one = recorder()
    one.offer(batch(["a", "b"], rows=2))
    one.offer(batch(["c"], version="2", source="cache"))
    one.count(MINUTE)
    one.count(MINUTE)
    one.pair(pair())
    one.pair(pair(place=1, candidate=None, failure="it fell\0over"))
    one.review(item(inputs={"size": float("nan"), "name": "a\0b", "none": None}))
    one.close(5)
    assert sorted(recorded(own_database)) == [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0)]
    rows = read(
        own_database,
        "SELECT model, version, model_digest, rows, share, extract(epoch FROM first_served), "
        "extract(epoch FROM last_predicted) FROM served_batch ORDER BY version",
    )
    assert [tuple(row)[:5] for row in rows] == [
        ("toy", "1", "1" * 64, 4, 1.0),
        ("toy", "2", "2" * 64, 1, 1.0),
    ]
    assert [(float(row[5]), float(row[6])) for row in rows] == [(AT, AT - 60)] * 2
    names = ", ".join(Minute._fields)
    [figures] = read(own_database, f"SELECT {names} FROM serving_minute")
    assert tuple(figures) == ("toy", "1", "live", 6, 2, 2, 60, 1.0, 0.5, 18.0, 8.0, 4)
    pairs = read(own_database, "SELECT live, candidate, failure FROM shadow_pair ORDER BY place")
    assert [tuple(row) for row in pairs] == [(0.25, 0.5, None), (0.25, None, "it fell\\0over")]
    [inputs] = read(own_database, "SELECT inputs FROM review_item WHERE decided_at IS NULL")
    assert inputs[0] == {"size": "nan", "name": "a\\0b", "none": None}
    assert (one.written, one.lost) == ({"toy": 5}, {})


def test_callers_who_use_a_request_id_again_lose_nothing(recorder, own_database):
    one = recorder()
    for _ in range(2):
        one.offer(batch(["same"]))
        one.pair(pair("same"))
        one.review(item("same"))
    one.close(5)
    assert recorded(own_database) == [("same", 0)] * 2
    for table in ("shadow_pair", "review_item"):
        assert len(read(own_database, f"SELECT id FROM {table}")) == 2


def test_figures_of_several_processes_add_up(recorder, own_database):
    for _ in range(3):
        one = recorder()
        one.count(MINUTE)
        one.close(5)
    [[requests]] = read(own_database, "SELECT sum(requests) FROM serving_minute")
    assert requests == 9


def test_nothing_is_lost_or_doubled_while_the_database_is_away(recorder, own_database):
    one = recorder()
    names = iter(range(1000))

    def serve():
        one.offer(batch([f"r{next(names)}"]))
        one.count(MINUTE)
        one.review(item(f"r{next(names)}"))

    serve()
    until(lambda: one.written["toy"])
    with gone(own_database):
        serve()
        until(lambda: not one.reachable)
        for _ in range(20):
            serve()
    until(lambda: one.reachable and one.written["toy"] == 22)
    serve()
    one.close(5)
    assert recorded(own_database) == [(f"r{number}", 0) for number in range(0, 46, 2)]
    [[requests]] = read(own_database, "SELECT sum(requests) FROM serving_minute")
    [[items]] = read(own_database, "SELECT count(*) FROM review_item")
    assert (requests, items, one.lost) == (23 * 3, 23, {})


def test_a_transaction_whose_end_was_not_seen_is_written_once(own_database):
    class Forgetful(ScratchDatabase):
        """Commits, and loses the connection before it can say so."""

        lost = 0

        @contextmanager
        def begin(self):
            with super().begin() as connection:
                yield connection
            if self.lost < 3:
                self.lost += 1
                raise DatabaseUnavailable("The connection broke.", remedy="Try again.")

    own_database.__class__ = Forgetful
    one = Recorder(own_database, flush_seconds=0.01)
    one.offer(batch(["a", "b"]))
    one.count(MINUTE)
    one.review(item())
    one.start()
    until(lambda: own_database.lost == 3)
    one.offer(batch(["c"]))
    one.close(5)
    assert recorded(own_database) == [("a", 0), ("b", 0), ("c", 0)]
    assert [tuple(row) for row in read(own_database, "SELECT requests FROM serving_minute")] == [
        (3,)
    ]
    assert (one.written, one.lost) == ({"toy": 3}, {})


def test_past_the_bound_rows_are_lost_counted_logged_and_told(recorder, own_database, caplog):
    one = recorder(buffer_rows=10)
    with gone(own_database):
        one.count(MINUTE)
        until(lambda: not one.reachable)
        for number in range(8):
            one.offer(batch([f"r{number}"], rows=4))
        one.review(item())
        one.review(item("r2"))
        one.review(item("r3"))
        assert one.lost == {"toy": 6 * 4 + 1}
        with caplog.at_level(logging.ERROR):
            until(lambda: "25 rows served by toy were not recorded" in caplog.text)
    until(lambda: alerts(own_database))
    [raised] = alerts(own_database)
    assert (raised.alert.kind, raised.alert.subject) == ("records_lost", "toy")
    assert raised.alert.evidence == {"rows": 25, "lost_by_this_process": 25}
    one.close(5)
    assert one.written["toy"] + one.lost["toy"] == 8 * 4 + 1
    assert caplog.text.count("were not recorded") == 1, "once a minute"


def test_what_cannot_be_written_is_lost_alone_and_the_rest_goes_on(recorder, own_database):
    one = recorder()
    broken = batch(["x", "y"], version="9")
    one.offer(broken._replace(row_ids=["x"]))
    one.offer(batch(["lone \ud800 surrogate"], version="8"))
    one.offer(batch(["a"]))
    until(lambda: one.written["toy"] == 1)
    # No such thing as place 5,000,000,000 in the table.
    one.pair(pair(place=5_000_000_000))
    until(lambda: one.lost["toy"] == 4)
    one.offer(batch(["b"]))
    one.close(5)
    assert recorded(own_database) == [("a", 0), ("b", 0)]
    assert (one.written, one.lost) == ({"toy": 2}, {"toy": 4})


def test_what_is_unwritten_at_the_end_is_counted(own_database):
    one = Recorder(own_database, flush_seconds=0.01)
    one.start()
    with gone(own_database):
        one.offer(batch(["a", "b"]))
        until(lambda: not one.reachable)
        one.offer(batch(["c"]))
        one.close(0.3)
    assert (one.written, one.lost) == ({}, {"toy": 3})


def test_a_server_that_hangs_is_not_called_reachable(own_database, monkeypatch):
    monkeypatch.setattr("aios_platform.serving.recording.HANGING_SECONDS", 0.05)
    one = Recorder(own_database, flush_seconds=0.01)
    one.start()
    with own_database.begin() as connection:
        connection.execute(text("LOCK TABLE recorder"))
        one.offer(batch(["a"]))
        until(lambda: not one.reachable)
    until(lambda: one.reachable and one.written["toy"] == 1)
    one.close(5)


def test_of_a_share_all_rows_of_a_request_are_recorded_or_none_in_every_process(own_database):
    names = [f"request-{number}" for number in range(400)]
    kept = []
    for size in (1, 7):
        one = Recorder(own_database, share={"toy": 0.3, "all": 1.0}.__getitem__)
        for start in range(0, 400, size):
            one.offer(batch(names[start : start + size], rows=2))
        one.offer(batch(["whole"], model="all"))
        one.close(5)
        kept.append(dict(one.written))
    assert kept[0] == kept[1]
    assert 0.2 < kept[0]["toy"] / 800 < 0.4
    found = [row for row in recorded(own_database) if row[0] != "whole"]
    assert sorted(found[: len(found) // 2]) == sorted(found[len(found) // 2 :])
    assert {place for _, place in found} == {0, 1}
    shares = read(own_database, "SELECT DISTINCT model, share FROM served_batch ORDER BY model")
    assert [(row.model, round(row.share, 3)) for row in shares] == [("all", 1.0), ("toy", 0.3)]


def test_many_rows_are_several_streams(recorder, own_database, monkeypatch):
    monkeypatch.setattr("aios_platform.serving.flushes.BLOB_ROWS", 10)
    one = recorder(flush_seconds=60)
    for number in range(6):
        one.offer(batch([f"r{number}"], rows=4))
    one.close(5)
    sizes = [row.rows for row in read(own_database, "SELECT rows FROM served_batch")]
    assert (sum(sizes), max(sizes)) == (24, 8)
    assert len(recorded(own_database)) == 24


def test_the_schema_travels_with_the_rows(recorder, own_database):
    one = recorder()
    one.offer(batch(["a"]))
    one.close(5)
    [[content]] = read(own_database, "SELECT content FROM served_batch")
    assert decode(content).features == SCHEMA
