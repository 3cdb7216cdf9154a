"""What was kept long enough goes, unless something rests on it."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from sqlalchemy import text

from aios_platform import retention
from aios_platform.alerts.outbox import alerts, raise_alert, resolve
from aios_platform.contracts.rollouts import RolloutState
from aios_platform.contracts.windows import WindowSchedule
from aios_platform.ledger.entries import append
from aios_platform.ledger.verification import verify
from aios_platform.resources.stores import Ledger
from aios_platform.retention import prune, undecided_since
from tests.unit.alerts.receivers import an_alert

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20"),
]
NOW = datetime(2026, 6, 15, tzinfo=UTC)
BEFORE = NOW - timedelta(days=30)
SCHEDULE = WindowSchedule.model_validate({"every": "month", "start": "2026-01"})


def served(database, *moments, model="m"):
    with database.begin() as connection:
        for moment in moments:
            connection.execute(
                text(
                    "INSERT INTO served_batch (model, version, model_digest, first_served, "
                    "last_served, first_predicted, last_predicted, rows, share, content) "
                    "VALUES (:model, '1', 'd', :at, :at, :at, :at, 1, 1, '')"
                ),
                {"model": model, "at": moment},
            )


def minutes(database, *moments, model="m"):
    with database.begin() as connection:
        for moment in moments:
            connection.execute(
                text(
                    "INSERT INTO serving_minute (model, version, role, minute) "
                    "VALUES (:model, '1', 'live', :at)"
                ),
                {"model": model, "at": moment},
            )


def pairs(database, number, moment, model="m"):
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO shadow_pair (model, rollout, request_id, place, live_version, "
                "version, live, live_seconds, seconds, served_at) "
                "VALUES (:model, :number, 'r', 0, '1', '2', 0.5, 0.1, 0.1, :at)"
            ),
            {"model": model, "number": number, "at": moment},
        )


def recorded(database, kind, payload, key):
    with database.begin() as connection:
        append(connection, kind=kind, subject="m", payload=payload, key=key)


def decide(database, *windows):
    for window in windows:
        recorded(database, "retrain_decision", {"decision": {"window": window}}, f"d:{window}")


def rollout(database, number, state, started_at):
    recorded(
        database,
        "rollout",
        {"rollout": {"number": number, "state": str(state), "started_at": started_at.isoformat()}},
        f"r:{number}:{state}",
    )


def left(database, table, column):
    with database.begin() as connection:
        return list(connection.execute(text(f"SELECT {column} FROM {table} ORDER BY 1")).scalars())


def day(month, number):
    return datetime(2026, month, number, 12, tzinfo=UTC)


def test_served_rows_stay_from_the_first_window_without_a_decision_on(own_database):
    served(own_database, day(1, 9), day(2, 9), day(3, 9), day(4, 9), day(6, 9))
    decide(own_database, "2026-01", "2026-03", "2026-04")
    since = undecided_since(own_database, "m", SCHEDULE, NOW)
    assert since == datetime(2026, 2, 1, tzinfo=UTC)
    found = prune(own_database, BEFORE, {"m": since})
    assert found.rows["served_batch"] == 1
    assert left(own_database, "served_batch", "last_served") == [
        day(2, 9), day(3, 9), day(4, 9), day(6, 9),
    ]  # fmt: skip
    decide(own_database, "2026-02")
    since = undecided_since(own_database, "m", SCHEDULE, NOW)
    # May has no decision yet, and June is not over.
    assert since == datetime(2026, 5, 1, tzinfo=UTC)
    prune(own_database, BEFORE, {"m": since})
    assert left(own_database, "served_batch", "last_served") == [day(6, 9)]


def test_a_model_without_any_decision_loses_no_served_row_and_an_undeclared_one_none(own_database):
    served(own_database, day(1, 9), day(2, 9))
    served(own_database, day(1, 9), model="forgotten")
    since = undecided_since(own_database, "m", SCHEDULE, NOW)
    assert since == datetime(2026, 1, 1, tzinfo=UTC)
    assert prune(own_database, BEFORE, {"m": since}).rows["served_batch"] == 0


def test_what_an_open_rollout_is_judged_by_stays(own_database):
    rollout(own_database, 1, RolloutState.ABORTED, day(1, 5))
    rollout(own_database, 2, RolloutState.RUNNING, day(2, 5))
    for number, moment in ((1, day(1, 6)), (2, day(2, 6)), (2, day(6, 6))):
        pairs(own_database, number, moment)
    pairs(own_database, 2, day(2, 6), model="other")
    minutes(own_database, day(1, 6), day(2, 6), day(6, 6))
    minutes(own_database, day(2, 6), model="other")
    found = prune(own_database, BEFORE, {})
    assert (found.rows["shadow_pair"], found.rows["serving_minute"]) == (2, 2)
    assert left(own_database, "shadow_pair", "served_at") == [day(2, 6), day(6, 6)]
    assert left(own_database, "serving_minute", "minute") == [day(2, 6), day(6, 6)]

    rollout(own_database, 2, RolloutState.ABORTED, day(2, 5))
    prune(own_database, BEFORE, {})
    assert left(own_database, "shadow_pair", "served_at") == [day(6, 6)]
    assert left(own_database, "serving_minute", "minute") == [day(6, 6)]
    assert verify(own_database).holds


def test_an_alert_goes_once_it_is_resolved_and_told(own_database):
    raise_alert(own_database, an_alert(key="open"), deliver=False)
    raise_alert(own_database, an_alert(key="quiet"), deliver=False)
    raise_alert(own_database, an_alert(key="untold"))
    for key in ("quiet", "untold"):
        assert resolve(own_database, key)
    with own_database.begin() as connection:
        connection.execute(
            text("UPDATE alert SET resolved_at = :at WHERE resolved_at IS NOT NULL"),
            {"at": day(1, 9)},
        )
    assert prune(own_database, BEFORE, {}).rows["alert"] == 1
    assert {a.alert.key for a in alerts(own_database)} == {"open", "untold"}

    with own_database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO alert_message (id, output, subject, critical, content, composed_at, "
                "state, next_attempt_at, ended_at) VALUES "
                "('x', 'log', 's', false, '{}', :at, 'sent', :at, :at)"
            ),
            {"at": day(1, 9)},
        )
        connection.execute(text("UPDATE alert_delivery SET message_id = 'x'"))
    found = prune(own_database, BEFORE, {})
    assert (found.rows["alert"], found.rows["alert_message"]) == (1, 1)
    assert {a.alert.key for a in alerts(own_database)} == {"open"}


def test_it_works_in_bounded_pieces(own_database, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "MOST_BATCHES", 2)
    minutes(own_database, *(day(1, number) for number in range(1, 8)))
    found = prune(own_database, BEFORE, {})
    assert (found.rows["serving_minute"], found.more) == (4, True)
    found = prune(own_database, BEFORE, {})
    assert (found.rows["serving_minute"], found.more) == (3, False)


def test_the_sensor_says_what_it_deleted(own_database, monkeypatch):
    from aios_platform.defs.platform import retention as module

    monkeypatch.setattr("aios_platform.resources.stores.database", lambda: own_database)
    minutes(own_database, datetime.now(UTC) - timedelta(days=500), datetime.now(UTC))
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance=instance, resources={"ledger": Ledger()})
        answer = module.retention.evaluate_tick(context)
        assert answer.skip_message == "Deleted rows: 1 of serving_minute."
        assert not answer.run_requests
        again = module.retention.evaluate_tick(context)
        assert again.skip_message == "Deleted rows: none."
    assert module.retention.default_status is dg.DefaultSensorStatus.RUNNING
