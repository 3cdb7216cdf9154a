"""Sensors and the schedule: the plan, evaluated by the daemon."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from aios_platform.access.principals import acting_as
from aios_platform.components.model_lifecycle.alias import look
from aios_platform.components.model_lifecycle.approvals import note_expired
from aios_platform.components.model_lifecycle.jobs import CRON, run_tags
from aios_platform.components.model_lifecycle.liveness import end_dead_runs, plan_lock
from aios_platform.components.model_lifecycle.names import CAUSE_KEY_TAG, MODEL_TAG, Names
from aios_platform.components.model_lifecycle.plan import Job, NextRun, next_run
from aios_platform.components.model_lifecycle.promotion import alias_evaluation
from aios_platform.components.model_lifecycle.state import read_state
from aios_platform.database import Database
from aios_platform.errors import DatabaseUnavailable
from aios_platform.ledger.identity import SCHEDULER
from aios_platform.resources.stores import Artifacts, Ledger, Registry

MOST_ATTEMPTS = 3
# A cause that comes back after good runs (its work was deleted, say) is not asked for for ever.
MOST_REPEATS = 10
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def requested_run(
    names: Names,
    job: Job,
    instance: dg.DagsterInstance,
    artifacts: Artifacts,
    ledger: Ledger,
) -> dg.RunRequest | dg.SkipReason:
    """The run request for the plan's next run if it is of this job, else why there is none.

    One run of a model at a time: the plan is read again when it has ended. A cause whose run
    failed is asked for again, at most three times in all, because Dagster burns a failed run's
    key for ever.
    """
    now, database = datetime.now(UTC), ledger.open()
    end_dead_runs(instance, database, names.model, now)
    if instance.get_runs(
        filters=dg.RunsFilter(tags={MODEL_TAG: names.model}, statuses=UNFINISHED), limit=1
    ):
        return dg.SkipReason(f"A run of {names.model} is in progress; the plan waits for its end.")
    with database.exclusive(plan_lock(names.model)) as plan:
        if not plan.held:
            return dg.SkipReason(f"`aios run {names.model}` is at work on the plan.")
    state = read_state(names.declaration, names, artifacts.open(), database, now)
    run = next_run(names.declaration, state)
    if run is None:
        return dg.SkipReason(f"{names.model} needs nothing: every window is scored and judged.")
    if run.job is not job:
        return dg.SkipReason(f"The next run of {names.model} is a {run.job} run: {run.cause}.")
    return _request(names, run, instance, now)


def _request(
    names: Names, run: NextRun, instance: dg.DagsterInstance, now: datetime
) -> dg.RunRequest | dg.SkipReason:
    key = run.key(names.model)
    ended = instance.get_runs(filters=dg.RunsFilter(tags={CAUSE_KEY_TAG: key}))
    failed = sum(not run.is_success for run in ended)
    if failed >= MOST_ATTEMPTS or len(ended) >= MOST_REPEATS:
        return dg.SkipReason(
            f"Gave up after {len(ended)} runs, {failed} of them failed, for: {run.cause}. "
            "Read the last run, mend its cause, and launch the job by hand."
        )
    # One clock for the whole run, and a key that neither a failed nor an undone run has burnt.
    return dg.RunRequest(run_key=f"{key}#{len(ended) + 1}", tags=run_tags(names, run, now))


def sensors_of(names: Names, jobs: list[UnresolvedAssetJobDefinition]) -> list[dg.SensorDefinition]:
    """The plan's sensors, one per job, and the one that watches MLflow's alias."""
    score_job, retrain_job, promote_job = jobs

    return [
        plan_sensor(
            names,
            "new_window",
            Job.SCORE,
            score_job,
            "A window closed, or was not yet scored by the live champion.",
        ),
        plan_sensor(
            names,
            "retrain_wanted",
            Job.RETRAIN,
            retrain_job,
            "There is no champion yet, or a retrain decision asks for a training.",
        ),
        plan_sensor(
            names,
            "approvals",
            Job.PROMOTE,
            promote_job,
            "A person approved a promotion: carry it out. Notes requests that expired.",
            before=lambda database: note_expired(names.model, database),
        ),
        alias_sensor(names),
    ]


def plan_sensor(
    names: Names,
    name: str,
    kind: Job,
    job: UnresolvedAssetJobDefinition,
    description: str,
    before: Callable[[Database], object] = lambda _: None,
) -> dg.SensorDefinition:
    """A sensor that asks for the plan's next run when it is of its job.

    Args:
        names: The model.
        name: The sensor's own part of its name.
        kind: Runs of which job it asks for.
        job: That job.
        description: When it fires, for people.
        before: Done first at every look, in the scheduler's name.
    """

    @dg.sensor(
        name=names.job(name),
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
    )
    def asks(
        context: dg.SensorEvaluationContext, artifacts: Artifacts, ledger: Ledger
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        with acting_as(SCHEDULER):
            before(ledger.open())
        answer = requested_run(names, kind, context.instance, artifacts, ledger)
        if isinstance(answer, dg.RunRequest):
            context.update_cursor(answer.run_key)
        yield answer

    return asks


def alias_sensor(names: Names) -> dg.SensorDefinition:
    """`<model>__reconcile`: MLflow's alias in step with the ledger, or an alarm."""

    @dg.sensor(
        name=names.job("reconcile"),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="MLflow's alias 'champion' follows the ledger; a hand-made edit is put back, "
        "is written to the ledger, and fails the check alias_in_step.",
    )
    def reconcile_alias(
        context: dg.SensorEvaluationContext, ledger: Ledger, registry: Registry
    ) -> dg.SensorResult | dg.SkipReason:
        with acting_as(SCHEDULER):
            try:
                report = look(names.model, ledger.open(), registry.open)
            except DatabaseUnavailable as error:
                return dg.SkipReason(f"Not looked at: {error}")
        if report.champion is None or str(report.state) == context.cursor:
            return dg.SkipReason(report.message)
        # Only a change is an event: a minute's look that finds nothing new is not.
        return dg.SensorResult(
            asset_events=[alias_evaluation(names, report)],
            cursor=str(report.state),
        )

    return reconcile_alias


def schedules_of(
    names: Names, jobs: list[UnresolvedAssetJobDefinition]
) -> list[dg.ScheduleDefinition]:
    """`<model>__window_closed`: asks at the end of each window, should its sensor be off."""
    windows = names.declaration.windows
    weekday = windows.start.isoweekday() % 7

    @dg.schedule(
        name=names.job("window_closed"),
        job=jobs[0],
        cron_schedule=CRON[windows.every].format(weekday=weekday),
        execution_timezone=windows.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Scores the window that just closed; the same run as its sensor would ask for.",
    )
    def window_closed(
        context: dg.ScheduleEvaluationContext, artifacts: Artifacts, ledger: Ledger
    ) -> dg.RunRequest | dg.SkipReason:
        return requested_run(names, Job.SCORE, context.instance, artifacts, ledger)

    return [window_closed]
