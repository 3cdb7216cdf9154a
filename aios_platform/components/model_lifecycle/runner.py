"""Runs the plan of a model in this process, through Dagster, until nothing is left to do."""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import DBAPIError

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.alarms import calm
from aios_platform.components.model_lifecycle.asking import Asked, NotNow, claimed_run
from aios_platform.components.model_lifecycle.jobs import PARTITION_TAG
from aios_platform.components.model_lifecycle.liveness import end_dead_runs, plan_lock
from aios_platform.components.model_lifecycle.names import COMMAND, LAUNCHED_BY_TAG, Names
from aios_platform.components.model_lifecycle.plan import NextRun
from aios_platform.contracts.alerts import AlertKind
from aios_platform.database import Database
from aios_platform.errors import DatabaseUnavailable, LifecycleError

logger = logging.getLogger(__name__)

# Bootstrap needs three runs; each further one answers a decision of the one before it.
MOST_RUNS = 50


@dataclass(frozen=True)
class StageResult:
    """What one step of a run did."""

    name: str
    seconds: float
    summary: str
    skipped: bool = False


@dataclass(frozen=True)
class RunResult:
    """One run of the plan.

    Attributes:
        run: What the plan asked for.
        run_id: Dagster's id of the run.
        stages: What its steps did.
        failure: Why it failed; empty: it did not.
    """

    run: NextRun
    run_id: str
    stages: tuple[StageResult, ...]
    failure: str = ""

    @property
    def seconds(self) -> float:
        """Of its steps."""
        return sum(stage.seconds for stage in self.stages)


def run_until_done(
    names: Names,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    database: Database,
    as_of: datetime,
    *,
    most_attempts: int | None = None,
) -> Iterator[RunResult]:
    """Execute the plan's runs one after the other, yielding each when it has ended.

    Args:
        names: The model.
        definitions: The loaded code location.
        instance: Where runs are recorded.
        store: The artifact root.
        database: Where the ledger lives.
        as_of: The clock: windows after it are not looked at.
        most_attempts: None: a run that fails ends this, for the person who asked; a number: it is
            asked for again so often, then given up, as the daemon does.

    Raises:
        LifecycleError: A run failed, the plan does not come to an end, or another process
            runs it.
        DatabaseUnavailable: Postgres went away.
    """
    with at_work(names, instance, database):
        yield from _plan(
            names, definitions, instance, store, database, as_of, most_attempts=most_attempts
        )


@contextmanager
def at_work(names: Names, instance: dg.DagsterInstance, database: Database) -> Iterator[None]:
    """Be the only command at work on a model; what a killed one left is ended first.

    Raises:
        LifecycleError: Another command is at work.
        DatabaseUnavailable: Postgres does not answer.
    """
    with database.exclusive(plan_lock(names.model)) as mine:
        if not mine.held:
            raise LifecycleError(
                f"Another command (run, replay or backfill) is at work on {names.model}.",
                remedy="Wait for its end; the same command then does what is left.",
            )
        end_dead_runs(instance, database, names.model, datetime.now(UTC), plan_held=True)
        yield


def _plan(
    names: Names,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    database: Database,
    as_of: datetime,
    *,
    most_attempts: int | None,
) -> Iterator[RunResult]:
    done: set[str] = set()
    for _ in range(MOST_RUNS):
        run_id = str(uuid.uuid4())
        asked = claimed_run(
            names, instance, store, database, as_of, most_attempts=most_attempts, run_id=run_id
        )
        if isinstance(asked, NotNow):
            raise LifecycleError(
                f"{asked.skip_message}",
                remedy="Wait for its end; the same command then does what is left.",
            )
        if not isinstance(asked, Asked):
            return
        if asked.claim.key in done:
            raise LifecycleError(
                f"The run '{asked.run.cause}' of {names.model} ended well but is still wanted.",
                remedy="This is a defect of the plan; please report it with the run's log.",
            )
        logger.info("%s  %s run: %s", names.model, asked.run.job, asked.run.cause)
        result = _execute(names, asked, definitions, instance, run_id)
        if not result.failure:
            done.add(asked.claim.key)
            for kind in (AlertKind.RETRAINING_FAILED, AlertKind.RUN_GIVEN_UP):
                calm(database, names.model, kind, asked.run.cause, "a run of it succeeded")
        elif most_attempts is None:
            raise LifecycleError(
                f"The {asked.run.job} run of {names.model} failed: {result.failure}",
                remedy=f"Mend the cause and run the same command again (run {run_id}; "
                "`make ui` shows its log).",
            )
        yield result
    raise LifecycleError(
        f"{names.model} still wants runs after {MOST_RUNS} of them.",
        remedy="Run the command again to go on, or look at `aios ledger show`.",
    )


def _execute(
    names: Names,
    asked: Asked,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    run_id: str,
) -> RunResult:
    run = asked.run
    tags = {**asked.request.tags, LAUNCHED_BY_TAG: COMMAND}
    job = definitions.resolve_job_def(names.job(run.job))
    what = f"the {run.job} run of {names.model}"
    stages, failure = execute(job, instance, run_id, tags, what)
    return RunResult(run, run_id, stages, failure)


def execute(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    run_id: str,
    tags: dict[str, str],
    what: str,
) -> tuple[tuple[StageResult, ...], str]:
    """Execute a run in this process.

    Args:
        job: The job.
        instance: Where the run is recorded.
        run_id: Its id.
        tags: Its tags; they name its windows.
        what: What it is, for messages.

    Returns:
        What its steps did, and why it failed (empty: it did not).

    Raises:
        DatabaseUnavailable: Postgres went away.
    """
    try:
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            tags=tags,
            partition_key=tags.get(PARTITION_TAG),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    except (DBAPIError, DagsterPostgresException) as error:
        # Dagster's own records go to the same server; without it a run cannot even fail properly.
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise DatabaseUnavailable(
            f"Postgres went away during {what}: {str(cause).strip().splitlines()[0]}.",
            remedy="Start the server, then run the same command again.",
        ) from error
    return tuple(_stages(result)), "" if result.success else _failure(result)


def _stages(result: dg.ExecuteInProcessResult) -> Iterator[StageResult]:
    summaries = {
        event.step_key: event.materialization.metadata["summary"].value
        for event in result.get_asset_materialization_events()
        if "summary" in event.materialization.metadata
    }
    for event in result.all_events:
        name = str(event.step_key).rsplit("__", 1)[-1]
        if event.is_step_success:
            seconds = event.step_success_data.duration_ms / 1000
            made = summaries.get(event.step_key)
            yield StageResult(name, seconds, str(made or "nothing to do"), skipped=made is None)
        elif event.is_step_skipped:
            yield StageResult(name, 0.0, "skipped: nothing upstream", skipped=True)


def _failure(result: dg.ExecuteInProcessResult) -> str:
    reasons = []
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            cause = event.step_failure_data.error
            while cause.cause is not None:
                cause = cause.cause
            said = cause.message.strip()
            # Of psycopg's two generations; a declared source may be another database's.
            if said.startswith(("psycopg2.OperationalError", "psycopg.OperationalError")):
                said = f"Postgres went away: {said.splitlines()[0]}"
            reasons.append(f"{event.step_key}: {said}")
    return "; ".join(reasons) or "no step failed; read the run's log"
