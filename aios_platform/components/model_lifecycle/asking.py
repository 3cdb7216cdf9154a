"""Asking for the plan's next run: the one way in which sensors, the schedule and commands do it.

A cause is claimed before its run is requested (`ledger/claims.py`), so it is requested once,
whoever asks and whoever is killed. A cause whose runs failed too often is given up, once and
aloud, and the plan goes on to the next.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.alarms import alarm
from aios_platform.components.model_lifecycle.jobs import run_tags
from aios_platform.components.model_lifecycle.liveness import (
    ATTEMPT_TAG,
    GONE,
    died_unseen,
    plan_lock,
    tell_death,
)
from aios_platform.components.model_lifecycle.names import CAUSE_KEY_TAG, MODEL_TAG, Names
from aios_platform.components.model_lifecycle.plan import Job, LifecycleState, NextRun, next_run
from aios_platform.components.model_lifecycle.spans import PRESENT
from aios_platform.components.model_lifecycle.state import GAVE_UP, read_state
from aios_platform.contracts.alerts import AlertKind
from aios_platform.database import Database
from aios_platform.ledger.claims import (
    Claim,
    Outcome,
    claim,
    claim_again,
    claims_of,
    settle,
    term_now,
)

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
# A cause that comes back after good runs (its work was deleted, say) is not asked for for ever.
MOST_REPEATS = 10
COMMAND_ASKS = "command"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class NotNow(dg.SkipReason):
    """There is something to do, and somebody is at it, or is just about to be."""


@dataclass(frozen=True)
class Asked:
    """A run whose cause is claimed."""

    run: NextRun
    claim: Claim
    request: dg.RunRequest


def ask(
    names: Names,
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    database: Database,
    now: datetime,
    *,
    job: Job | None = None,
    most_attempts: int | None = MOST_ATTEMPTS,
    asker: str = COMMAND_ASKS,
    run_id: str | None = None,
) -> dg.RunRequest | dg.SkipReason:
    """`claimed_run`, as a sensor answers: the request alone."""
    found = claimed_run(
        names, instance, store, database, now,
        job=job, most_attempts=most_attempts, asker=asker, run_id=run_id,
    )  # fmt: skip
    return found.request if isinstance(found, Asked) else found


def claimed_run(
    names: Names,
    instance: dg.DagsterInstance,
    store: ArtifactStore,
    database: Database,
    now: datetime,
    *,
    job: Job | None = None,
    most_attempts: int | None = MOST_ATTEMPTS,
    asker: str = COMMAND_ASKS,
    run_id: str | None = None,
) -> Asked | dg.SkipReason:
    """The plan's next run with its cause claimed, or why there is none.

    One run of a model at a time: the plan is read again when it has ended.

    Args:
        names: The model.
        instance: Dagster's records.
        store: The artifact root.
        database: Where ledger and claims are.
        now: The clock of the lifecycle.
        job: Runs of which job are asked for; None: of any.
        most_attempts: After so many failed runs a cause is given up; None: never, and what was
            given up is tried again, for a person's command, which is given when it was mended.
        asker: Name of the sensor or schedule. Two that ask for the same job have two names.
        run_id: The run that the caller itself executes: its claim is bound at once.

    Returns:
        The claimed run; `NotNow` where somebody else is at work; another reason where the plan
        wants nothing, or nothing of this job.

    Raises:
        DatabaseUnavailable: Nothing was claimed.
        ArtifactCorrupt: A list of versions cannot be read.
    """
    # Read first: an evaluation that outlives its daemon must not claim in the next one's term.
    term = term_now(database)
    unfinished = instance.get_runs(
        filters=dg.RunsFilter(tags={MODEL_TAG: names.model}, statuses=UNFINISHED), limit=1
    )
    if unfinished:
        return NotNow(
            f"Run {unfinished[0].run_id} of {names.model} is in progress; the plan waits for "
            "its end."
        )
    state = read_state(
        names.declaration, names, store, database, now, patient=most_attempts is None
    )
    while (run := next_run(names.declaration, state)) is not None:
        tries = _settled(instance, database, run.key(names.model))
        over = _over(tries, most_attempts)
        if over is None:
            break
        if run.cause not in state.given_up:
            _give_up(names, database, run, tries, over, now)
        further = _without(state, run)
        if further == state:
            return dg.SkipReason(f"Gave up: {run.cause}. {over}")
        state = further
    if run is None:
        return dg.SkipReason(f"{names.model} needs nothing: every window is scored and judged.")
    if job is not None and run.job is not job:
        return dg.SkipReason(f"The next run of {names.model} is a {run.job} run: {run.cause}.")
    if asker != COMMAND_ASKS:
        with database.exclusive(plan_lock(names.model)) as plan:
            if not plan.held:
                return NotNow(f"`aios run {names.model}` is at work on the plan.")
    mine = _claimed(names, database, run, tries, asker, term, run_id)
    if mine is None:
        return NotNow(f"The run is claimed, and about to be launched: {run.cause}.")
    request = dg.RunRequest(
        run_key=mine.run_key,
        job_name=names.job(run.job),
        # One clock for the whole run.
        tags={**run_tags(names, run, now), ATTEMPT_TAG: str(mine.attempt)},
    )
    return Asked(run, mine, request)


def _settled(instance: dg.DagsterInstance, database: Database, key: str) -> list[Claim]:
    """The attempts at a cause, with what became of the last one if that is known by now."""
    tries = claims_of(database, key)
    if not tries or tries[-1].outcome is not None:
        return tries
    last = tries[-1]
    run = _run_of(instance, last)
    if run is None and last.run_id is None:
        return tries
    outcome = Outcome.GONE
    if run is not None:
        # Nobody would ask while one of the model's runs is unfinished.
        outcome = Outcome.SUCCEEDED if run.is_success else Outcome.FAILED
        if died_unseen(run):
            tell_death(database, run, GONE, datetime.now(UTC))
    if settle(database, last, outcome):
        tries[-1] = last.model_copy(update={"outcome": outcome})
    return tries


def _run_of(instance: dg.DagsterInstance, attempt: Claim) -> dg.DagsterRun | None:
    if attempt.run_id is not None:
        return instance.get_run_by_id(attempt.run_id)
    # Launched, and never begun: cancelled in the queue, or its process did not come up.
    tags = {CAUSE_KEY_TAG: attempt.key, ATTEMPT_TAG: str(attempt.attempt)}
    return next(iter(instance.get_runs(dg.RunsFilter(tags=tags), limit=1)), None)


def _over(tries: list[Claim], most_attempts: int | None) -> str | None:
    """Why a cause is not asked for again, if so. Only what happened since its last end counts."""
    if most_attempts is None:
        return None
    ended = [attempt.outcome for attempt in tries if attempt.outcome is not None]
    failed = 0
    while failed < len(ended) and ended[-1 - failed] is Outcome.FAILED:
        failed += 1
    if failed >= most_attempts:
        return f"{failed} runs in a row failed."
    if len(ended) >= MOST_REPEATS:
        return f"{len(ended)} runs ended, and it is still wanted."
    return None


def _claimed(
    names: Names,
    database: Database,
    run: NextRun,
    tries: list[Claim],
    asker: str,
    term: int,
    run_id: str | None,
) -> Claim | None:
    if tries and tries[-1].outcome is None:
        again = claim_again(database, tries[-1], asker=asker, term=term, run_id=run_id)
        return tries[-1] if again else None
    wanted = Claim(
        key=run.key(names.model),
        attempt=len(tries) + 1,
        model=names.model,
        job=run.job,
        cause=run.cause,
        asker=asker,
        term=term,
        run_id=run_id,
    )
    return wanted if claim(database, wanted) else None


def _give_up(
    names: Names,
    database: Database,
    run: NextRun,
    tries: list[Claim],
    why: str,
    now: datetime,
) -> None:
    """Tell a person, then write it down: whoever dies in between tells it again, as the same."""
    from aios_platform.ledger.entries import append

    runs = [attempt.run_id for attempt in tries if attempt.run_id is not None]
    training = run.job is Job.RETRAIN
    logger.error("%s  gave up: %s (%s)", names.model, run.cause, why)
    alarm(
        database,
        names.model,
        AlertKind.RETRAINING_FAILED if training else AlertKind.RUN_GIVEN_UP,
        run.cause,
        f"Gave up the {run.job} run '{run.cause}': {why}"
        + (" The live model is untouched." if training else ""),
        now=now,
        past=datetime.now(UTC) - now > PRESENT,
        evidence={"job": run.job, "first": run.first, "last": run.last, "runs": runs},
    )
    with database.begin() as connection:
        append(
            connection,
            kind=GAVE_UP,
            subject=names.model,
            payload={
                "cause": run.cause,
                "job": run.job,
                "first": run.first,
                "last": run.last,
                "runs": runs,
                "reason": why,
            },
            key=f"{GAVE_UP}:{run.key(names.model)}",
        )


def _without(state: LifecycleState, run: NextRun) -> LifecycleState:
    approved = None if run.job is Job.PROMOTE else state.approved
    return state.model_copy(update={"given_up": state.given_up | {run.cause}, "approved": approved})
