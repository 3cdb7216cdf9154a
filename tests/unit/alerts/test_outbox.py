import logging
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from aios_platform.alerts.outbox import (
    alert_of,
    alerts,
    raise_alert,
    raise_within,
    resolve,
    resolve_one,
    try_raise,
)
from aios_platform.contracts.alerts import Severity
from aios_platform.database import Database, parse_server_url
from aios_platform.errors import AlertError, DatabaseUnavailable
from tests.unit.alerts.receivers import an_alert

pytestmark = [pytest.mark.postgres]


def told(database) -> list[tuple[int, str]]:
    with database.begin() as connection:
        rows = connection.execute(text("SELECT alert_id, output FROM alert_delivery ORDER BY 1, 2"))
        return [tuple(row) for row in rows]


def test_an_open_key_is_told_once_and_counted(own_database):
    assert raise_alert(own_database, an_alert(evidence={"share": 0.1}))
    assert not raise_alert(own_database, an_alert(evidence={"share": 0.2}, ledger_row=7))
    [found] = alerts(own_database, open_only=True)
    assert (found.count, found.alert.evidence, found.alert.ledger_row) == (2, {"share": 0.2}, 7)
    assert found.first_seen < found.last_seen
    assert told(own_database) == [(found.id, "log")]


def test_once_resolved_the_same_key_may_alarm_again(own_database):
    assert not resolve(own_database, "k"), "nothing is open"
    raise_alert(own_database, an_alert())
    assert resolve(own_database, "k", by="bob", reason="mended")
    assert not resolve(own_database, "k")
    assert alerts(own_database, open_only=True) == []
    assert raise_alert(own_database, an_alert())
    second, first = alerts(own_database)
    assert (first.resolved_by, first.resolution) == ("bob", "mended")
    assert (second.resolved_at, second.count) == (None, 1)
    assert told(own_database) == [(first.id, "log"), (second.id, "log")]


def test_an_occurrence_is_resolved_by_its_number_once(own_database):
    raise_alert(own_database, an_alert())
    [found] = alerts(own_database)
    done = resolve_one(own_database, found.id, by="bob", reason=" mended ")
    assert (done.resolved_by, done.resolution) == ("bob", "mended")
    assert resolve_one(own_database, found.id, by="eve", reason="again") == done
    with pytest.raises(AlertError, match="no reason"):
        resolve_one(own_database, found.id, by="bob", reason=" ")
    with pytest.raises(AlertError, match="no alert 99"):
        resolve_one(own_database, 99, by="bob", reason="x")


def test_a_replay_records_and_tells_nobody_until_it_happens_today(own_database):
    past = datetime(2013, 9, 1, tzinfo=UTC)
    assert raise_alert(own_database, an_alert(raised_at=past), deliver=False)
    assert not raise_alert(own_database, an_alert(raised_at=past), deliver=False)
    assert told(own_database) == []
    assert raise_alert(own_database, an_alert()), "nobody was told yet"
    [found] = alerts(own_database)
    assert told(own_database) == [(found.id, "log")]
    assert (found.count, found.alert.raised_at) == (3, past)


def test_a_replay_does_not_overwrite_what_is_newer(own_database):
    raise_alert(own_database, an_alert(evidence={"of": "today"}))
    before = datetime.now(UTC) - timedelta(days=400)
    raise_alert(own_database, an_alert(evidence={"of": "last year"}, raised_at=before))
    [found] = alerts(own_database)
    assert (found.count, found.alert.evidence) == (2, {"of": "today"})


def test_a_warning_becomes_critical_and_stays_so(own_database):
    for severity in (Severity.WARNING, Severity.CRITICAL, Severity.WARNING):
        raise_alert(own_database, an_alert(severity=severity))
    assert alerts(own_database)[0].alert.severity is Severity.CRITICAL


def test_an_alert_comes_and_goes_with_the_callers_transaction(own_database):
    with own_database.begin() as connection:
        assert raise_within(connection, an_alert())
        connection.rollback()
    assert alerts(own_database) == []
    assert told(own_database) == []


def test_raised_and_resolved_by_many_at_once_nothing_is_told_twice(own_database):
    with ThreadPoolExecutor(8) as pool:
        news = list(pool.map(lambda _: raise_alert(own_database, an_alert()), range(40)))
        assert (news.count(True), alerts(own_database)[0].count) == (1, 40)
        mixed = [raise_alert if n % 2 else resolve for n in range(60)]
        done = list(pool.map(lambda f: f(own_database, "k" if f is resolve else an_alert()), mixed))
    found = alerts(own_database)
    raised_anew = sum(result for f, result in zip(mixed, done, strict=True) if f is raise_alert)
    assert len(found) == 1 + raised_anew
    assert sum(one.resolved_at is None for one in found) <= 1
    assert told(own_database) == [(one.id, "log") for one in reversed(found)]


def test_they_are_listed_by_subject_newest_first(own_database):
    for key in ("a", "b", "c"):
        raise_alert(own_database, an_alert(key=key, subject="n" if key == "b" else "m"))
    assert [a.alert.key for a in alerts(own_database)] == ["c", "b", "a"]
    assert [a.alert.key for a in alerts(own_database, subject="m")] == ["c", "a"]
    assert [a.alert.key for a in alerts(own_database, limit=1)] == ["c"]
    assert alert_of(own_database, alerts(own_database)[0].id).alert.key == "c"


def test_odd_evidence_does_not_add_to_the_trouble(own_database):
    odd = {"nan": math.nan, 3: math.inf, "text": "a\0b\ud800", "at": datetime.now(UTC),
           "set": {1}, "any": object, "nested": [{"x": -math.inf}]}  # fmt: skip
    raise_alert(own_database, an_alert(evidence=odd, summary="a\0\nb\r\ud800 c"))
    [found] = alerts(own_database)
    assert found.alert.summary == "a b c"
    assert (found.alert.evidence["nan"], found.alert.evidence["3"]) == ("nan", "inf")
    raise_alert(own_database, an_alert(evidence={"rows": ["x" * 50] * 1000}))
    assert set(alerts(own_database)[0].alert.evidence) == {"cut_off"}


def test_long_keys_stay_two_keys(own_database):
    for end in "ab":
        assert raise_alert(own_database, an_alert(key="k" * 5000 + end))
    assert resolve(own_database, "k" * 5000 + "a")
    assert len(alerts(own_database, open_only=True)) == 1


def test_an_outage_is_logged_and_breaks_no_work(caplog, monkeypatch):
    gone = Database(parse_server_url("postgresql://u:hidden@127.0.0.1:1/postgres"), embedded=False)
    monkeypatch.setattr(logging.getLogger("aios_platform"), "propagate", True)
    assert try_raise(gone, an_alert()) is False
    assert "Alert not recorded: m:" in caplog.text
    assert "hidden" not in caplog.text
    with pytest.raises(DatabaseUnavailable):
        raise_alert(gone, an_alert())
