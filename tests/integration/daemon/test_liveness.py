"""Dead runs are told from living ones by a lock that dies with the process."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from aios_platform.components.model_lifecycle.liveness import (
    alive,
    end_dead_runs,
    plan_lock,
    run_lock,
)
from aios_platform.components.model_lifecycle.names import COMMAND, LAUNCHED_BY_TAG, MODEL_TAG

MODEL = "liveness_probe"
LIVENESS = "aios_platform.components.model_lifecycle.liveness"
LATER = timedelta(minutes=10)
HOLD = """
import sys, time
from sqlalchemy import make_url
from aios_platform.components.model_lifecycle.liveness import alive
from aios_platform.database import Database
with alive(Database(make_url(sys.argv[1]), embedded=False), sys.argv[2]):
    print("alive", flush=True)
    time.sleep(120)
"""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(f"{LIVENESS}.PULSE_SECONDS", 0.05)
    monkeypatch.setattr(f"{LIVENESS}.SETTLE_SECONDS", 0.05)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@dg.job
def nothing() -> None:
    pass


def started(instance, status=dg.DagsterRunStatus.STARTED, **tags):
    return instance.create_run_for_job(
        nothing, tags={MODEL_TAG: MODEL, **tags}, status=status
    ).run_id


def ended(instance, database, *, after=LATER, **options):
    return end_dead_runs(instance, database, MODEL, datetime.now(UTC) + after, **options)


def test_a_run_whose_process_was_killed_is_ended_and_a_living_one_is_not(instance, database):
    run_id = started(instance)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, database.server_url, run_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "alive"
        assert ended(instance, database) == []
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
    deadline = time.monotonic() + 20
    found: list[str] = []
    while not found and time.monotonic() < deadline:
        found = ended(instance, database)
        time.sleep(0.05)
    assert found == [run_id]
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE
    assert ended(instance, database) == []


def test_a_run_that_has_only_begun_is_given_time(instance, database):
    starting = started(instance, dg.DagsterRunStatus.STARTING)
    just_now = started(instance)
    assert ended(instance, database, after=timedelta(seconds=1)) == []
    assert ended(instance, database, after=timedelta(minutes=1)) == [just_now]
    assert ended(instance, database, after=timedelta(minutes=6)) == [starting]


def test_a_run_that_has_just_ended_keeps_its_end(instance, database, monkeypatch):
    """Its lock is free a moment before Dagster hears of its end."""
    run_id = started(instance)
    monkeypatch.setattr(
        f"{LIVENESS}.time.sleep",
        lambda _: instance.report_run_canceled(instance.get_run_by_id(run_id)),
    )
    assert ended(instance, database) == []
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.CANCELED


def test_a_waiting_run_and_another_models_are_left_alone(instance, database):
    started(instance, dg.DagsterRunStatus.NOT_STARTED)
    started(instance, **{MODEL_TAG: "another"})
    assert ended(instance, database) == []


def test_the_commands_run_lives_as_long_as_the_command(instance, database):
    run_id = started(instance, **{LAUNCHED_BY_TAG: COMMAND})
    with database.exclusive(plan_lock(MODEL)) as plan:
        assert plan.held
        assert ended(instance, database) == []
    assert ended(instance, database, after=timedelta(0)) == [run_id]


def test_a_lock_lost_with_its_connection_is_taken_again(database):
    with alive(database, "interrupted"):
        with database.begin() as connection:
            [holder] = connection.exec_driver_sql(
                "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
            ).scalars()
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({holder})")
        deadline, again = time.monotonic() + 20, None
        while again in (None, holder) and time.monotonic() < deadline:
            time.sleep(0.1)
            with database.begin() as connection:
                again = connection.exec_driver_sql(
                    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
                ).scalar()
        assert again not in (None, holder)
    with database.exclusive(run_lock("interrupted")) as lock:
        assert lock.held
