"""Each sensor fires exactly once per cause, wherever the daemon is killed: ten times each."""

import random
import time
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest
from sqlalchemy import create_engine, text

from aios_platform.components.model_lifecycle.names import MODEL_TAG
from aios_platform.components.model_lifecycle.plan import LifecycleState
from aios_platform.ledger.entries import entries
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
        run = station.queued(cause)
        station.rest()
        station.succeed(run)
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
