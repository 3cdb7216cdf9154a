"""Which runs are alive, and which run does the work.

Dagster believes a killed run to be at work until somebody says otherwise, and whatever waits for
its end waits for ever. So every run of ours holds an advisory lock while it executes, and a run
that Dagster takes for started and whose lock is free is dead.

A run of the plan binds the claim of its cause before its first step (`ledger/claims.py`): of two
that were launched for one cause, one works.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG

from aios_platform.components.model_lifecycle.alarms import alarm, calm
from aios_platform.components.model_lifecycle.names import (
    CAUSE_KEY_TAG,
    CAUSE_TAG,
    COMMAND,
    LAUNCHED_BY_TAG,
    MODEL_TAG,
)
from aios_platform.contracts.alerts import AlertKind
from aios_platform.database import Database, database
from aios_platform.errors import DatabaseUnavailable
from aios_platform.ledger.claims import Claim, bind, claims_of

logger = logging.getLogger(__name__)

ATTEMPT_TAG = "aios/attempt"
# A run that outlives this is ended: by Dagster's run monitoring, else by `end_dead_runs`.
MAX_RUNTIME_TAG = "dagster/max_runtime"
OVERTIME = timedelta(minutes=5)
# Dagster writes that a run has started a moment before the run takes its lock; a process that is
# to execute a run takes longer to come up.
GRACE = {
    dg.DagsterRunStatus.STARTING: timedelta(minutes=5),
    dg.DagsterRunStatus.STARTED: timedelta(seconds=20),
    dg.DagsterRunStatus.CANCELING: timedelta(minutes=1),
}
# What clocks of several machines differ by; more, and the clock stepped back.
SKEW = timedelta(minutes=5)
GONE = "its process is gone (killed, or its machine went down)"
PULSE_SECONDS = 5.0
SETTLE_SECONDS = 1.0


def plan_lock(model: str) -> str:
    """Name of the lock that `aios run` holds, so that nobody else runs the model's plan."""
    return f"plan {model}"


def run_lock(run_id: str) -> str:
    """Name of the lock that a run holds while it executes."""
    return f"run {run_id}"


@contextmanager
def alive(opened: Database, run_id: str) -> Iterator[None]:
    """Hold the run's lock; taken again when the server was restarted meanwhile."""
    over, taken = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=_hold, args=(opened, run_lock(run_id), over, taken), name="alive", daemon=True
    )
    thread.start()
    taken.wait(PULSE_SECONDS)
    try:
        yield
    finally:
        over.set()
        thread.join(PULSE_SECONDS)


def _hold(opened: Database, name: str, over: threading.Event, taken: threading.Event) -> None:
    while not over.is_set():
        try:
            with opened.exclusive(name) as lock:
                taken.set()
                while lock.still_held() and not over.wait(PULSE_SECONDS):
                    pass
        except DatabaseUnavailable as error:
            logger.debug("The lock '%s' is not held: %s", name, error)
        over.wait(1.0)


class LivingExecutor(InProcessExecutor):
    """Executes a run in its process, if the work is its to do, and lets others see it alive."""

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        """Execute the plan while the run's lock is held."""
        run, instance, opened = plan_context.dagster_run, plan_context.instance, database()
        with alive(opened, run.run_id):
            other = done_by_another(instance, opened, run)
            if other is not None:
                logger.warning("Run %s does nothing: %s", run.run_id, other)
                instance.report_run_canceling(run, message=other)
                raise DagsterExecutionInterruptedError(other)
            failed = False
            for event in super().execute(plan_context, execution_plan):
                failed = failed or event.is_step_failure
                if event.is_step_start and _ended(instance, run.run_id):
                    raise DagsterExecutionInterruptedError(
                        "The run was ended from outside while it hung; it does no further step."
                    )
                yield event
            if not failed:
                _calm(opened, run)


@dg.executor(name="in_process")
def living_executor(_: dg.InitExecutorContext) -> LivingExecutor:
    """The executor of every job of the platform."""
    return LivingExecutor(retries=RetryMode.ENABLED)


def done_by_another(
    instance: dg.DagsterInstance, opened: Database, run: dg.DagsterRun
) -> str | None:
    """Bind the claim of a run's cause to the run, or say which other run has it.

    A run that a person repeats from Dagster's pages carries its original's tags, and takes its
    place once that has ended.

    Raises:
        DatabaseUnavailable: Nobody knows whose the work is; nothing may be done.
    """
    key, attempt = run.tags.get(CAUSE_KEY_TAG), run.tags.get(ATTEMPT_TAG)
    if key is None or attempt is None:
        return None
    wanted = Claim(
        key=key,
        attempt=int(attempt),
        model=run.tags.get(MODEL_TAG, ""),
        job=run.job_name,
        cause=run.tags.get(CAUSE_TAG, ""),
        asker="",
        term=0,
        run_id=run.run_id,
    )
    other = bind(opened, wanted)
    if other and run.parent_run_id is not None and _ended(instance, other):
        other = bind(opened, wanted, after=[other])
    if other is None:
        return None
    by = f"by run {other}" if other else "without it"
    return (
        f"The work of this run is done {by}: it was launched twice for one cause "
        f"({wanted.cause}). Nothing was done here."
    )


def end_dead_runs(
    instance: dg.DagsterInstance,
    opened: Database,
    model: str,
    now: datetime,
    *,
    plan_held: bool = False,
) -> list[str]:
    """Report the model's dead runs, and those that outlived their limit, as failed.

    Nobody waits for them then, and their work is asked for again. Safe to repeat after a kill, and
    to do in several processes at once: a run is ended once.

    Args:
        instance: Dagster's records.
        opened: Where the locks are.
        model: Name of the model.
        now: The present, aware.
        plan_held: Whether the caller holds the plan's lock: then no `aios run` is at work.

    Returns:
        Ids of the runs that were ended.

    Raises:
        DatabaseUnavailable: The server does not answer; nobody is taken for dead then.
    """
    records = instance.get_run_records(
        filters=dg.RunsFilter(tags={MODEL_TAG: model}, statuses=list(GRACE))
    )
    suspects = [
        (record, why) for record in records if (why := _fault(opened, record, now, plan_held))
    ]
    if not suspects:
        return []
    # Dagster hears of a run's end a moment after its lock is free; and a run that lost its lock
    # with its connection, or with the server, has it again after a pulse.
    time.sleep(SETTLE_SECONDS if plan_held else PULSE_SECONDS + 2 * SETTLE_SECONDS)
    return [
        record.dagster_run.run_id
        for record, why in suspects
        if _fault(opened, record, now, plan_held) and _end(instance, opened, record, why, now)
    ]


def died_unseen(run: dg.DagsterRun) -> bool:
    """Whether a failed run's process was killed while its code server looked on.

    Dagster reports it then at once, as a failure without a reason.
    """
    return run.status is dg.DagsterRunStatus.FAILURE and RUN_FAILURE_REASON_TAG not in run.tags


def tell_death(opened: Database, run: dg.DagsterRun, why: str, now: datetime) -> None:
    """Alert a person that a run did not end by itself."""
    alarm(
        opened,
        run.tags[MODEL_TAG],
        AlertKind.RUN_DIED,
        run.run_id,
        f"Run {run.run_id} ({run.job_name}) was ended: {why}. Its work is asked for again.",
        now=now,
        past=False,
        evidence={"run": run.run_id, "job": run.job_name, "cause": run.tags.get(CAUSE_TAG)},
    )


def _fault(opened: Database, record: dg.RunRecord, now: datetime, plan_held: bool) -> str | None:
    """Why a run will not end by itself.

    Locks are looked at after the records: a run that is in them had taken its lock by then.
    """
    run = record.dagster_run
    if run.tags.get(LAUNCHED_BY_TAG) == COMMAND:
        # Executed by `aios run` itself, which is at work as long as the plan's lock is held.
        return GONE if plan_held or _free(opened, plan_lock(run.tags[MODEL_TAG])) else None
    limit = run.tags.get(MAX_RUNTIME_TAG)
    if limit is not None and record.start_time is not None:
        age = timedelta(seconds=now.timestamp() - record.start_time)
        if age > timedelta(seconds=float(limit)) + OVERTIME:
            return f"it has been at work for longer than its limit ({limit} s)"
    age = now - record.update_timestamp
    # A record from the future was written before the clock stepped back.
    if (age > GRACE[run.status] or age < -SKEW) and _free(opened, run_lock(run.run_id)):
        return GONE
    return None


def _end(
    instance: dg.DagsterInstance,
    opened: Database,
    record: dg.RunRecord,
    why: str,
    now: datetime,
) -> bool:
    run = record.dagster_run
    with opened.lock(f"end {run.run_id}"):
        again = instance.get_run_by_id(run.run_id)
        if again is None or again.status not in GRACE:
            return False
        logger.warning(
            "%s  run %s is reported as failed: %s.", run.tags[MODEL_TAG], run.run_id, why
        )
        # The alert first, which told twice is told once: nobody looks at an ended run again.
        tell_death(opened, run, why, now)
        instance.report_run_failed(
            again,
            f"The run was ended: {why}. What it began is finished by the next run.",
            JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION),
        )
        return True


def _ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is None or run.is_finished


def _calm(opened: Database, run: dg.DagsterRun) -> None:
    """Take back what earlier attempts at the same cause raised."""
    key, cause = run.tags.get(CAUSE_KEY_TAG), run.tags.get(CAUSE_TAG)
    if key is None or cause is None or int(run.tags.get(ATTEMPT_TAG, 1)) == 1:
        return
    model, reason = run.tags[MODEL_TAG], f"run {run.run_id} did the work"
    for kind in (AlertKind.RETRAINING_FAILED, AlertKind.RUN_GIVEN_UP):
        calm(opened, model, kind, cause, reason)
    for earlier in claims_of(opened, key):
        if earlier.run_id not in (None, run.run_id):
            calm(opened, model, AlertKind.RUN_DIED, str(earlier.run_id), reason)


def _free(opened: Database, name: str) -> bool:
    with opened.exclusive(name) as lock:
        return lock.held
