"""Sensors and the schedule: the plan and the watch over it, evaluated by the daemon.

Each is safe to kill at any point and to evaluate again: what it does is claimed, or written, under
a key of its cause (`asking.py`, the ledger); no cursor of Dagster's decides what is done.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import (
    UnresolvedAssetJobDefinition,
)

from aios_platform.access.principals import acting_as
from aios_platform.components.model_lifecycle.approvals import note_expired
from aios_platform.components.model_lifecycle.asking import ask
from aios_platform.components.model_lifecycle.jobs import CRON
from aios_platform.components.model_lifecycle.liveness import end_dead_runs
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import Job
from aios_platform.components.model_lifecycle.watching import watch_alias
from aios_platform.database import Database
from aios_platform.errors import DatabaseUnavailable
from aios_platform.ledger.identity import SCHEDULER
from aios_platform.resources.stores import Artifacts, Ledger, Registry

LOOK_SECONDS = 30
ALIAS_LOOK_SECONDS = 60


def sensors_of(names: Names, jobs: list[UnresolvedAssetJobDefinition]) -> list[dg.SensorDefinition]:
    """The plan's sensors, one per job, and those that watch MLflow's alias and the runs."""
    by_name = {job.name: job for job in jobs}

    def asks(name: str, kind: Job, description: str, **options: Any) -> dg.SensorDefinition:
        return plan_sensor(names, name, kind, by_name[names.job(kind)], description, **options)

    return [
        asks(
            "new_window",
            Job.SCORE,
            "A window closed, or was not yet scored by the live champion.",
        ),
        asks(
            "matured_labels",
            Job.MEASURE,
            "The labels of scored windows have come: hold the predictions against them.",
        ),
        asks(
            "retrain_wanted",
            Job.RETRAIN,
            "There is no champion yet, or a retrain decision asks for a training.",
        ),
        asks(
            "approvals",
            Job.PROMOTE,
            "A person approved a promotion: carry it out. Notes requests that expired.",
            before=lambda database: note_expired(names.model, database),
        ),
        alias_sensor(names),
        stuck_runs_sensor(names),
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
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus(names.automation),
        description=description,
    )
    def asks(
        context: dg.SensorEvaluationContext, artifacts: Artifacts, ledger: Ledger
    ) -> dg.RunRequest | dg.SkipReason:
        with acting_as(SCHEDULER):
            before(ledger.open())
        return _asked(names, kind, name, context.instance, artifacts, ledger)

    return asks


def alias_sensor(names: Names) -> dg.SensorDefinition:
    """`<model>__reconcile`: MLflow's alias in step with the ledger, or an alarm."""

    @dg.sensor(
        name=names.job("reconcile"),
        minimum_interval_seconds=ALIAS_LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus(names.automation),
        description="MLflow's alias 'champion' follows the ledger; a hand-made edit is put back, "
        "is written to the ledger, and fails the check alias_in_step.",
    )
    def reconcile_alias(
        context: dg.SensorEvaluationContext, ledger: Ledger, registry: Registry
    ) -> dg.SensorResult | dg.SkipReason:
        with acting_as(SCHEDULER):
            try:
                return watch_alias(
                    names, context.instance, ledger.open(), registry.open, context.cursor
                )
            except DatabaseUnavailable as error:
                return dg.SkipReason(f"Not looked at: {error}")

    return reconcile_alias


def stuck_runs_sensor(names: Names) -> dg.SensorDefinition:
    """`<model>__stuck_runs`: runs that will not end by themselves are ended."""

    @dg.sensor(
        name=names.job("stuck_runs"),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus(names.automation),
        description="Ends the runs whose process is gone, and those that outlived their limit: "
        "Dagster would believe them to be at work for ever, and the plan would wait.",
    )
    def stuck_runs(context: dg.SensorEvaluationContext, ledger: Ledger) -> dg.SkipReason:
        ended = end_dead_runs(context.instance, ledger.open(), names.model, datetime.now(UTC))
        return dg.SkipReason(f"Ended: {', '.join(ended)}." if ended else "No run is stuck.")

    return stuck_runs


def schedules_of(
    names: Names, jobs: list[UnresolvedAssetJobDefinition]
) -> list[dg.ScheduleDefinition]:
    """`<model>__window_closed`: asks at the end of each window, should its sensor be off."""
    windows = names.declaration.windows
    weekday = windows.start.isoweekday() % 7
    [score_job] = [job for job in jobs if job.name == names.job(Job.SCORE)]

    @dg.schedule(
        name=names.job("window_closed"),
        job=score_job,
        cron_schedule=CRON[windows.every].format(weekday=weekday),
        execution_timezone=windows.timezone,
        default_status=dg.DefaultScheduleStatus(names.automation),
        description="Scores the window that just closed; the same run as its sensor would ask for.",
    )
    def window_closed(
        context: dg.ScheduleEvaluationContext, artifacts: Artifacts, ledger: Ledger
    ) -> dg.RunRequest | dg.SkipReason:
        return _asked(names, Job.SCORE, "window_closed", context.instance, artifacts, ledger)

    return [window_closed]


def _asked(
    names: Names,
    job: Job,
    asker: str,
    instance: dg.DagsterInstance,
    artifacts: Artifacts,
    ledger: Ledger,
) -> dg.RunRequest | dg.SkipReason:
    now = datetime.now(UTC)
    # What is given up is written down, and that is the scheduler's doing.
    with acting_as(SCHEDULER):
        return ask(names, instance, artifacts.open(), ledger.open(), now, job=job, asker=asker)
