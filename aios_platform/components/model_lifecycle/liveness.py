"""Which runs are alive: each holds a lock in Postgres that dies with its process.

Dagster believes a killed run to be at work until somebody says otherwise, and whatever waits for
its end waits for ever. So every run of ours holds an advisory lock while it executes, and a run
that Dagster takes for started and whose lock is free is dead.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.in_process import InProcessExecutor

from aios_platform.components.model_lifecycle.names import COMMAND, LAUNCHED_BY_TAG, MODEL_TAG
from aios_platform.database import Database, database
from aios_platform.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

# Dagster writes that a run has started a moment before the run takes its lock; a process that is
# to execute a run takes longer to come up.
GRACE = {
    dg.DagsterRunStatus.STARTING: timedelta(minutes=5),
    dg.DagsterRunStatus.STARTED: timedelta(seconds=20),
    dg.DagsterRunStatus.CANCELING: timedelta(minutes=1),
}
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
    """Executes a run in its process, and lets others see that it is alive."""

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        """Execute the plan while the run's lock is held."""
        with alive(database(), plan_context.run_id):
            yield from super().execute(plan_context, execution_plan)


@dg.executor(name="in_process")
def living_executor(_: dg.InitExecutorContext) -> LivingExecutor:
    """The executor of every job of the platform."""
    return LivingExecutor(retries=RetryMode.ENABLED)


def end_dead_runs(
    instance: dg.DagsterInstance,
    opened: Database,
    model: str,
    now: datetime,
    *,
    plan_held: bool = False,
) -> list[str]:
    """Report the model's dead runs as failed, so that nobody waits for them.

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
    ended = []
    for record in records:
        run = record.dagster_run
        # Locks are looked at after the records: a run that is in them had taken its lock by then.
        if run.tags.get(LAUNCHED_BY_TAG) == COMMAND:
            # Executed by `aios run` itself, which is at work as long as the plan's lock is held.
            dead = plan_held or _free(opened, plan_lock(model))
        else:
            late = now - record.update_timestamp > GRACE[run.status]
            dead = late and _free(opened, run_lock(run.run_id))
        if dead:
            # Dagster hears of a run's end a moment after its lock is free.
            time.sleep(SETTLE_SECONDS)
            again = instance.get_run_by_id(run.run_id)
            dead = again is not None and again.status in GRACE
        if dead:
            message = (
                "The process of this run is gone (killed, or its machine went down); what it "
                "began is finished by the next run."
            )
            logger.warning("%s  run %s is dead: reported as failed.", model, run.run_id)
            instance.report_run_failed(run, message)
            ended.append(run.run_id)
    return ended


def _free(opened: Database, name: str) -> bool:
    with opened.exclusive(name) as lock:
        return lock.held
