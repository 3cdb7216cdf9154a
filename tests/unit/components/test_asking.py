"""Asking for the plan's next run: attempts, giving up, and what comes after."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from aios_platform.access.principals import acting_as
from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle import asking
from aios_platform.components.model_lifecycle.asking import (
    MOST_REPEATS,
    Asked,
    NotNow,
    ask,
    claimed_run,
)
from aios_platform.components.model_lifecycle.liveness import ATTEMPT_TAG, plan_lock
from aios_platform.components.model_lifecycle.names import CAUSE_KEY_TAG
from aios_platform.components.model_lifecycle.plan import Job, LifecycleState
from aios_platform.components.model_lifecycle.state import GAVE_UP
from aios_platform.ledger.claims import bind, claims_of, new_term
from aios_platform.ledger.entries import entries
from aios_platform.ledger.identity import SCHEDULER
from tests.e2e import small_flights

pytestmark = pytest.mark.postgres
NOW = datetime.now(UTC)
EMPTY = LifecycleState(closed=(), matured=(), featured=frozenset(), scored=frozenset())
# Two windows to be scored, with one between them that was not.
FIRST = EMPTY.model_copy(
    update={"closed": ("2013-01", "2013-02", "2013-03"), "featured": frozenset({"2013-02"})}
)


@dg.job
def nothing() -> None:
    pass


class Asker:
    """A model whose state the test says, and who asks about it."""

    def __init__(self, database, store: ArtifactStore, instance: dg.DagsterInstance) -> None:
        self.names = small_flights.names()
        self.database, self.store, self.instance = database, store, instance
        self.state = FIRST

    def read(self, *_: object, patient: bool = False) -> LifecycleState:
        rows = entries(self.database, subject=self.names.model, kind=GAVE_UP)
        given_up = frozenset() if patient else frozenset(row.payload["cause"] for row in rows)
        return self.state.model_copy(update={"given_up": given_up})

    def alerts(self) -> list[tuple[str, int]]:
        with self.database.begin() as connection:
            return connection.exec_driver_sql("SELECT key, count FROM alert").all()

    def claimed(self, **options: object) -> Asked | dg.SkipReason:
        where = (self.names, self.instance, self.store, self.database, NOW)
        with acting_as(SCHEDULER):
            return claimed_run(*where, **{"asker": "new_window", **options})

    def run(self, asked: Asked, status: dg.DagsterRunStatus, reason: str = "STEP_FAILURE") -> str:
        """The request's run, which has begun and is now in this status."""
        tags = {**asked.request.tags, **({"dagster/failure_reason": reason} if reason else {})}
        run = self.instance.create_run_for_job(nothing, tags=tags, status=status)
        bind(self.database, asked.claim.model_copy(update={"run_id": run.run_id}))
        return run.run_id


@pytest.fixture
def asker(own_database, store, monkeypatch):
    with dg.DagsterInstance.ephemeral() as instance:
        made = Asker(own_database, store, instance)
        monkeypatch.setattr(asking, "read_state", made.read)
        yield made


def test_a_cause_is_asked_for_once(asker):
    asked = asker.claimed()
    assert asked.run.cause == "new windows 2013-01"
    key = asked.claim.key
    assert asked.request.run_key == f"{key}#1"
    assert asked.request.job_name == "flight_delay__score"
    assert asked.request.tags[CAUSE_KEY_TAG] == key
    assert asked.request.tags[ATTEMPT_TAG] == "1"
    assert isinstance(asker.claimed(), NotNow)
    new_term(asker.database)
    assert asker.claimed().claim == asked.claim


def test_an_unfinished_run_is_waited_for(asker):
    asker.run(asker.claimed(), dg.DagsterRunStatus.STARTED)
    assert isinstance(asker.claimed(), NotNow)
    assert "is in progress" in asker.claimed().skip_message


def test_runs_of_another_job_are_left_to_its_sensor(asker):
    skipped = asker.claimed(job=Job.RETRAIN)
    assert "is a score run" in skipped.skip_message
    assert not isinstance(skipped, NotNow)
    assert isinstance(asker.claimed(job=Job.SCORE), Asked)


def test_a_command_at_work_has_the_plan_to_itself(asker):
    with asker.database.exclusive(plan_lock(asker.names.model)):
        assert isinstance(asker.claimed(), NotNow)
        assert isinstance(asker.claimed(asker=asking.COMMAND_ASKS, run_id="mine"), Asked)


def test_nothing_is_nothing(asker):
    asker.state = EMPTY
    where = (asker.names, asker.instance, asker.store, asker.database, NOW)
    skipped = ask(*where)
    assert "needs nothing" in skipped.skip_message
    assert not isinstance(skipped, NotNow)


def test_a_cause_that_failed_three_times_is_given_up_once_and_the_next_is_asked_for(asker):
    ids = []
    for attempt in (1, 2, 3):
        asked = asker.claimed()
        assert (asked.run.cause, asked.claim.attempt) == ("new windows 2013-01", attempt)
        ids.append(asker.run(asked, dg.DagsterRunStatus.FAILURE))
    after = asker.claimed()
    assert after.run.cause == "new windows 2013-03"
    [row] = entries(asker.database, subject="flight_delay", kind=GAVE_UP)
    assert row.payload == {
        "cause": "new windows 2013-01", "job": "score", "first": "2013-01", "last": "2013-01",
        "runs": ids, "reason": "3 runs in a row failed.",
    }  # fmt: skip
    assert isinstance(asker.claimed(), NotNow)
    assert asker.alerts() == [("run_given_up:flight_delay:new windows 2013-01", 1)]


def test_a_run_whose_death_dagster_saw_first_is_told_too(asker):
    run_id = asker.run(asker.claimed(), dg.DagsterRunStatus.FAILURE, reason="")
    assert asker.claimed().claim.attempt == 2
    assert isinstance(asker.claimed(), NotNow)
    assert asker.alerts() == [(f"run_died:flight_delay:{run_id}", 1)]


def test_a_persons_command_tries_again_what_was_given_up(asker):
    for _ in range(3):
        asker.run(asker.claimed(), dg.DagsterRunStatus.FAILURE)
    asker.claimed()
    tried = asker.claimed(most_attempts=None, run_id="mine", asker=asking.COMMAND_ASKS)
    assert (tried.run.cause, tried.claim.attempt) == ("new windows 2013-01", 4)


def test_a_success_in_between_begins_the_count_anew(asker):
    failure, success = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
    for status in (failure, failure, success, failure, failure):
        asker.run(asker.claimed(), status)
    assert asker.claimed().claim.attempt == 6


def test_a_cause_that_comes_back_after_every_success_is_given_up_too(asker):
    for _ in range(MOST_REPEATS):
        asker.run(asker.claimed(), dg.DagsterRunStatus.SUCCESS)
    assert asker.claimed().run.cause == "new windows 2013-03"
    [row] = entries(asker.database, subject="flight_delay", kind=GAVE_UP)
    assert "still wanted" in row.payload["reason"]


def test_purged_records_of_runs_neither_free_nor_block_a_cause(asker):
    for _ in range(2):
        run_id = asker.run(asker.claimed(), dg.DagsterRunStatus.FAILURE)
    asked = asker.claimed()
    asker.instance.delete_run(run_id)
    run_id = asker.run(asked, dg.DagsterRunStatus.SUCCESS)
    asker.instance.delete_run(run_id)
    fourth = asker.claimed()
    assert fourth.claim.attempt == 4
    outcomes = [claim.outcome for claim in claims_of(asker.database, fourth.claim.key)]
    assert outcomes == ["failed", "failed", "gone", None]


def test_a_run_that_was_cancelled_in_the_queue_counts_as_failed(asker):
    asked = asker.claimed()
    asker.instance.create_run_for_job(
        nothing, tags=asked.request.tags, status=dg.DagsterRunStatus.CANCELED
    )
    assert asker.claimed().claim.attempt == 2


def test_an_approved_request_that_cannot_be_carried_out_does_not_block_for_ever(asker):
    asker.state = FIRST.model_copy(update={"approved": 7})
    for _ in range(3):
        asker.run(asker.claimed(), dg.DagsterRunStatus.FAILURE)
    assert asker.claimed().run.cause == "new windows 2013-01"
    assert isinstance(asker.claimed(), NotNow)
    assert len(entries(asker.database, subject="flight_delay", kind=GAVE_UP)) == 1
