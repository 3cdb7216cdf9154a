"""Each sensor fires exactly once per cause, wherever the daemon is killed: ten times each."""

import random
import signal
import time
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest
import yaml
from sqlalchemy import create_engine, text

from aios_platform.components.model_lifecycle.names import MODEL_TAG
from aios_platform.components.model_lifecycle.plan import Job, LifecycleState
from aios_platform.database import Database
from aios_platform.embedded import start_embedded
from aios_platform.ledger.entries import entries
from aios_platform.settings import settings
from tests.integration.daemon import probe, stand
from tests.integration.daemon.crashing import BEFORE_CURSOR, EVALUATED, EVALUATING, REPORTED
from tests.integration.daemon.stand import Stand, kill, until

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]
RANDOM = "RANDOM"
# Dagster's own crash points, in their order, and ours.
POINTS = (
    "TICK_CREATED",
    "TICK_HELD",
    EVALUATING,
    EVALUATED,
    "RUN_IDS_RESERVED",
    "RUN_CREATED",
    "RUN_LAUNCHED",
    "RUN_IDS_ADDED_TO_EVALUATIONS",
    BEFORE_CURSOR,
    RANDOM,
)
NO_RUN_POINTS = (
    "TICK_CREATED",
    "TICK_HELD",
    *[EVALUATING] * 2,
    *[EVALUATED] * 2,
    BEFORE_CURSOR,
    *[RANDOM] * 3,
)
ALIAS_POINTS = (*NO_RUN_POINTS[:-1], REPORTED)
WINDOW = "w{:02}"


@pytest.fixture(scope="module")
def station(own_home, tmp_path_factory) -> Iterator[Stand]:
    from aios_platform.database import database

    with stand.opened(tmp_path_factory.mktemp("stand"), database()) as opened:
        # Every sensor ticks once, so that Dagster knows it.
        opened.start()
        until(lambda: len(opened.states()) == 6)
        opened.kill_all()
        yield opened


@pytest.fixture(autouse=True)
def _quiet(station) -> Iterator[None]:
    station.rest()
    yield
    station.kill_all()


def new_window(key: str) -> tuple[LifecycleState, str]:
    return probe.NOTHING.model_copy(update={"closed": (key,)}), f"new windows {key}"


def matured_labels(key: str) -> tuple[LifecycleState, str]:
    there = {"closed": (key,), "matured": (key,), "featured": frozenset({key})}
    there["scored"] = there["featured"]
    return probe.NOTHING.model_copy(update=there), f"labels of {key} matured"


def retrain_wanted(key: str) -> tuple[LifecycleState, str]:
    cause = f"decision on window {key}"
    return probe.NOTHING.model_copy(update={"retrain_wanted": cause}), cause


def approvals(key: str) -> tuple[LifecycleState, str]:
    number = int(key[1:])
    state = probe.NOTHING.model_copy(update={"approved": number})
    return state, f"request {number} was approved"


def crash(station: Stand, pid: int, point: str) -> None:
    """Wait until the daemon has died where it was told to."""
    if point == RANDOM:
        time.sleep(random.random() * 0.4)
        kill(pid)
    until(lambda: not psutil.pid_exists(pid))


@pytest.mark.parametrize("cause_of", [new_window, matured_labels, retrain_wanted, approvals])
def test_a_cause_has_one_run(station, cause_of):
    sensor, causes = cause_of.__name__, []
    station.only(sensor)
    daemon = station.start()
    for number, point in enumerate(POINTS):
        state, cause = cause_of(WINDOW.format(number))
        station.want(state, sensor, point)
        crash(station, daemon, point)
        station.want(state)
        daemon = station.start()
        station.queued(cause)
        forget(station, cause)
        causes.append(cause)
    station.pass_ticks(sensor)
    for cause in causes:
        assert len(station.runs(cause)) == 1, cause
        claims = station.rows("SELECT attempt FROM cause_claim WHERE cause = %(c)s", c=cause)
        assert [row.attempt for row in claims] == [1], cause


def test_a_stuck_run_is_ended_and_told_once(station):
    station.only("stuck_runs")
    daemon, stuck = station.start(), []
    for point in NO_RUN_POINTS:
        run_id = dead_run(station)
        station.want(probe.NOTHING, "stuck_runs", point)
        crash(station, daemon, point)
        station.rest()
        daemon = station.start()
        until(lambda run_id=run_id: station.instance.get_run_by_id(run_id).is_finished)
        stuck.append(run_id)
    station.pass_ticks("stuck_runs")
    for run_id in stuck:
        failed = dg.DagsterEventType.RUN_FAILURE
        assert len(station.instance.all_logs(run_id, of_type=failed)) == 1
        assert told(station, f"run_died:probe:{run_id}") == 1


def test_an_alias_moved_by_hand_is_put_back_and_told_once(station):
    promoted(station)
    (station.folder / "alias").write_text("1")
    station.only("reconcile")
    daemon = station.start()
    until(lambda: entries(station.database, subject=probe.MODEL, kind="alias_projected"))
    for number, point in enumerate(ALIAS_POINTS):
        found = str(100 + number)
        # The check of the alarm before was told, and that all is well again.
        until(lambda: (station.states()["reconcile"].instigator_data.cursor or "")[:2] == "in")
        (station.folder / "alias").write_text(found)
        station.want(probe.NOTHING, "reconcile", point)
        crash(station, daemon, point)
        station.rest()
        daemon = station.start()
        until(lambda told=number + 1: len(failed_checks(station)) == told)
    station.pass_ticks("reconcile")
    rows = entries(station.database, subject=probe.MODEL, kind="alias_tampered")
    assert [row.payload["found"] for row in reversed(rows)] == [str(100 + n) for n in range(10)]
    assert (station.folder / "alias").read_text() == "1"
    assert failed_checks(station) == [row.seq for row in reversed(rows)]
    alerts = station.rows("SELECT key FROM alert WHERE kind = 'alias_tampered'")
    assert len(alerts) == len(set(alerts)) == 10


def test_a_second_daemon_stands_by_and_takes_over(station):
    station.only("new_window")
    first = station.start()
    station.pass_ticks("new_window")
    term = station.term()
    second = station.start()
    until(lambda: told(station, f"second_daemon:{term}"))
    state, cause = new_window("standby")
    station.want(state)
    station.queued(cause)
    assert station.term() == term
    forget(station, cause)
    kill(first)
    until(lambda: station.term() == term + 1)
    assert psutil.pid_exists(second)
    state, cause = new_window("takeover")
    station.want(state)
    station.queued(cause)
    [alert] = station.rows("SELECT resolved_at FROM alert WHERE kind = 'second_daemon'")
    assert alert.resolved_at
    forget(station, cause)


def test_two_daemons_without_our_lock_do_no_work_twice(station, monkeypatch):
    monkeypatch.setenv("PROBE_FOLDER", str(station.folder))
    station.only("new_window")
    for _ in range(2):
        station.start("plain")
    done = len(station.work())
    for number in range(3):
        state, cause = new_window(f"plain {number}")
        station.want(state)
        until(lambda cause=cause: station.runs(cause))
        station.pass_ticks("new_window", 3)
        station.rest()
        for run in station.runs(cause):
            station.execute(run)
    assert len(station.work()) == done + 3


def test_of_two_runs_for_one_claim_one_works(station, monkeypatch):
    monkeypatch.setenv("PROBE_FOLDER", str(station.folder))
    station.only("new_window")
    station.start()
    state, cause = new_window("twice")
    station.want(state)
    first = station.queued(cause)
    station.kill_all()
    job = probe.job(Job.SCORE)
    second = station.instance.create_run_for_job(job, tags=first.tags)
    assert station.execute(first) is dg.DagsterRunStatus.SUCCESS
    assert station.execute(second) is dg.DagsterRunStatus.CANCELED
    said = [event.message for event in station.instance.all_logs(second.run_id)]
    assert any(f"done by run {first.run_id}" in message for message in said)
    assert station.work()[-1] == first.run_id
    # What a person repeats is another matter.
    repeated = station.instance.create_run_for_job(
        job, tags=first.tags, parent_run_id=first.run_id, root_run_id=first.run_id
    )
    assert station.execute(repeated) is dg.DagsterRunStatus.SUCCESS
    assert station.work()[-1] == repeated.run_id


def test_a_cause_that_fails_is_given_up_aloud_and_the_next_one_goes_on(station):
    station.only("new_window", "retrain_wanted")
    station.start()
    cause, window = "decision on window broken", "after"
    state = probe.NOTHING.model_copy(
        update={
            "closed": (window,), "featured": frozenset({window}), "trained_through": "",
            "retrain_wanted": cause,
        }
    )  # fmt: skip
    station.want(state)
    for _ in range(3):
        station.instance.report_run_failed(station.queued(cause))
    station.queued(f"windows {window} were never scored")
    station.pass_ticks("retrain_wanted")
    assert len(station.runs(cause)) == 3
    [row] = entries(station.database, subject=probe.MODEL, kind="gave_up")
    assert (row.payload["cause"], row.principal) == (cause, "service:scheduler")
    [alert] = station.rows("SELECT * FROM alert WHERE kind = 'retraining_failed'")
    assert (alert.severity, alert.count) == ("critical", 1)
    assert "3 runs in a row failed" in alert.summary
    forget(station, f"windows {window} were never scored")


@pytest.mark.parametrize("point", [EVALUATED, "RUN_IDS_RESERVED", "RUN_LAUNCHED"])
def test_a_daemon_that_was_away_for_a_day_launches_nothing_again(station, point):
    """Dagster resumes no tick that is older than a day; it evaluates the sensor anew."""
    station.only("new_window")
    daemon = station.start()
    state, cause = new_window(f"day {point}")
    station.want(state, "new_window", point)
    crash(station, daemon, point)
    station.want(state)
    station.shift("new_window", -25 * 3600)
    station.start()
    station.queued(cause)
    station.pass_ticks("new_window")
    assert len(station.runs(cause)) == 1
    forget(station, cause)


def test_a_clock_that_went_back_silences_no_sensor(station):
    station.only("new_window")
    station.shift("new_window", 3600 - 30)
    seen = station.ticks("new_window")
    station.start("plain", "patient")
    time.sleep(1.5)
    assert station.ticks("new_window") == seen
    station.kill_all()
    station.start("patient")
    until(lambda: station.ticks("new_window") > seen)
    [alert] = station.rows("SELECT evidence FROM alert WHERE kind = 'clock_stepped_back'")
    assert alert.evidence["sensors"] == ["probe__new_window"]


def test_a_daemon_outlives_its_server(station):
    """The real command: without its lock it starts anew, and takes it again."""
    station.only("new_window")
    workspace = station.folder / "workspace.yaml"
    place = {"host": "localhost", "port": station.port, "location_name": "probe"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": place}]}))
    term, seen = station.term(), station.ticks("new_window")
    station.shift("new_window", -60)
    process = station.command("daemon", "-w", str(workspace))
    try:
        until(lambda: station.ticks("new_window") == seen + 1)
        assert station.term() == term + 1
        restart(station.database)
        station.shift("new_window", -60)
        until(lambda: station.ticks("new_window") == seen + 2)
        assert station.term() == term + 2
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def restart(database: Database) -> None:
    """Stop the embedded Postgres under everybody, and start it again."""
    folder = settings().home_path / "postgres"
    note = (folder / "postmaster.pid").read_text()
    server = psutil.Process(int(note.split()[0]))
    server.send_signal(signal.SIGINT)
    server.wait(30)
    start_embedded(folder)


def forget(station: Stand, cause: str) -> None:
    """End a cause's run, and want nothing any more."""
    station.rest()
    for run in station.runs(cause):
        station.succeed(run)


def dead_run(station: Stand) -> str:
    """A run that Dagster believes to be at work, and that no process executes."""
    made = station.instance.create_run_for_job(
        nothing, tags={MODEL_TAG: probe.MODEL}, status=dg.DagsterRunStatus.STARTED
    )
    engine = create_engine(station.database.url("dagster"))
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE runs SET update_timestamp = now() - interval '1 hour' WHERE run_id = :r"),
            {"r": made.run_id},
        )
    engine.dispose()
    return made.run_id


@dg.job
def nothing() -> None:
    pass


def told(station: Stand, key: str) -> int:
    return len(station.rows("SELECT 1 FROM alert WHERE key = %(key)s", key=key))


def failed_checks(station: Stand) -> list[int]:
    """The alarms that the check `alias_in_step` was told of, oldest first."""
    key = dg.AssetCheckKey(dg.AssetKey([probe.MODEL, "champion"]), "alias_in_step")
    history = station.instance.event_log_storage.get_asset_check_execution_history(key, 1000)
    said = [record.event.dagster_event.asset_check_evaluation_data for record in history]
    return [check.metadata["ledger_row"].value for check in reversed(said) if not check.passed]


def promoted(station: Stand) -> None:
    """A champion, version 1."""
    from aios_platform.ledger.champions import promote
    from tests.verdicts import verdict

    promote(
        station.database, verdict(probe.MODEL, "1"), model_digest="a" * 64, run_id="run",
        training_set_digest="b" * 64, trained_through="2013-01",
    )  # fmt: skip
