"""What a replay left that was killed: its dead run, and one that ended unnoted."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.components.model_lifecycle.jobs import (
    PARTITION_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
)
from aios_platform.components.model_lifecycle.liveness import end_dead_runs, plan_lock
from aios_platform.components.model_lifecycle.names import (
    AS_OF_TAG,
    CAUSE_KEY_TAG,
    CAUSE_TAG,
    COMMAND,
    LAUNCHED_BY_TAG,
    MODEL_TAG,
    Names,
)
from aios_platform.ledger.claims import Outcome, claims_of, settle
from aios_platform.replay.clocks import Tick
from aios_platform.replay.progress import Progress, RunDone

if TYPE_CHECKING:
    from aios_platform.database import Database

TRAINING_STEPS = ("training_set", "candidate")


def forget_deaths(names: Names, instance: dg.DagsterInstance, database: "Database") -> None:
    """End the runs of a killed replay; they are no failed attempts at their causes.

    Counted as such, a replay that is killed three times in one training would give it up, and
    decide otherwise ever after than one that was left alone.

    Raises:
        DatabaseUnavailable: Postgres went away.
    """
    with database.exclusive(plan_lock(names.model)) as mine:
        if not mine.held:
            # Somebody is at work; who runs the plan next is told so.
            return
        dead = end_dead_runs(instance, database, names.model, datetime.now(UTC), plan_held=True)
        for run_id in dead:
            run = instance.get_run_by_id(run_id)
            key = run.tags.get(CAUSE_KEY_TAG) if run else None
            for attempt in claims_of(database, key) if key else ():
                if attempt.run_id == run_id and attempt.outcome is None:
                    settle(database, attempt, Outcome.GONE)


def unnoted_runs(
    names: Names, instance: dg.DagsterInstance, progress: Progress, moments: Sequence[Tick]
) -> tuple[RunDone, ...]:
    """Runs that ended well just before their process was killed, as progress would have them.

    Args:
        names: The model.
        instance: Where runs are recorded.
        progress: What was noted.
        moments: Those that are left; a run of any other was noted.
    """
    return tuple(_unnoted(names, instance, progress, moments))


def _unnoted(
    names: Names, instance: dg.DagsterInstance, progress: Progress, moments: Sequence[Tick]
) -> Iterator[RunDone]:
    noted = {run.run_id for run in progress.runs}
    left = {tick.clock: tick for tick in moments}
    records = instance.get_run_records(
        dg.RunsFilter(
            tags={MODEL_TAG: names.model, LAUNCHED_BY_TAG: COMMAND},
            statuses=[dg.DagsterRunStatus.SUCCESS],
        ),
        ascending=True,
    )
    for record in records:
        run = record.dagster_run
        clock = run.tags.get(AS_OF_TAG)
        tick = left.get(datetime.fromisoformat(clock)) if clock else None
        if run.run_id in noted or tick is None:
            continue
        single = run.tags.get(PARTITION_TAG)
        last = run.tags.get(RANGE_END_TAG, single)
        yield RunDone(
            run_id=run.run_id,
            clock=tick.clock,
            job=run.job_name.removeprefix(names.job("")),
            cause=run.tags[CAUSE_TAG],
            first=run.tags.get(RANGE_START_TAG, single),
            last=last,
            window=last or window_of(tick),
            seconds=(record.end_time or 0.0) - (record.start_time or 0.0),
            training_seconds=_training_seconds(instance, run.run_id),
        )


def window_of(tick: Tick) -> str:
    """The window that a moment's runs are counted to where they are about none themselves."""
    return (tick.matured or tick.closed)[-1]


def _training_seconds(instance: dg.DagsterInstance, run_id: str) -> float:
    return sum(
        (step.end_time or 0.0) - (step.start_time or 0.0)
        for step in instance.get_run_step_stats(run_id)
        if step.step_key.rsplit("__", 1)[-1] in TRAINING_STEPS
    )
