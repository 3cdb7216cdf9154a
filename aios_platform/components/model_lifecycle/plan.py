"""What a model needs next: a pure function from the state of its lifecycle to the next runs.

The same plan drives `aios run` (until nothing is left to do), the sensors and the schedule. That
is how a brand-new model bootstraps itself: its windows are ingested, then it is trained, then the
windows after its training are scored, without anybody knowing the order.
"""

from enum import StrEnum

from pydantic import Field

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import Record, digest_of


class Job(StrEnum):
    """The jobs of a model that the plan asks for."""

    SCORE = "score"
    RETRAIN = "retrain"
    PROMOTE = "promote"
    """Carries out a promotion that a person has approved."""


class LifecycleState(Record):
    """What is there, as read from the stores. Keys are window keys, oldest first."""

    closed: tuple[str, ...] = Field(description="Windows that are over.")
    matured: tuple[str, ...] = Field(description="Windows whose labels are complete.")
    featured: frozenset[str] = Field(description="Windows with validated data and features.")
    champion_version: str | None = None
    trained_through: str | None = Field(
        default=None, description="Last window the champion was trained on."
    )
    scored: frozenset[str] = Field(description="Windows the live champion has scored.")
    judged: frozenset[str] = Field(
        default=frozenset(), description="Windows with a retrain decision on the live champion."
    )
    retrain_wanted: str | None = Field(
        default=None, description="Window whose decision asks for a retraining not yet answered."
    )
    verdicts: frozenset[str] = Field(
        default=frozenset(), description="Causes that already led to a verdict."
    )
    approved: int | None = Field(
        default=None, description="Oldest approved request that was not carried out yet."
    )


class NextRun(Record):
    """One run that the plan asks for."""

    job: Job
    cause: str = Field(description="Why, in words and stable: equal causes are one run.")
    first: str | None = Field(default=None, description="First window of a scoring run.")
    last: str | None = Field(default=None, description="Last window of a scoring run.")
    request: int | None = Field(default=None, description="The approved request to carry out.")

    def key(self, model: str) -> str:
        """Idempotency key of the run."""
        return f"{model}:{self.job}:{digest_of([self.cause, self.first, self.last])[:16]}"


def next_run(declaration: ModelDeclaration, state: LifecycleState) -> NextRun | None:
    """The next run a model needs, or None when it needs none.

    Args:
        declaration: The model.
        state: What is there now.
    """
    if state.approved is not None:
        return NextRun(
            job=Job.PROMOTE,
            cause=f"request {state.approved} was approved",
            request=state.approved,
        )
    missing = [k for k in state.closed if k not in state.featured]
    if missing:
        first, last = _first_block(state.closed, missing)
        return NextRun(
            job=Job.SCORE, cause=f"new windows {first} to {last}", first=first, last=last
        )
    if state.champion_version is None:
        return _first_training(declaration, state)
    if state.retrain_wanted is not None:
        run = NextRun(job=Job.RETRAIN, cause=f"decision on window {state.retrain_wanted}")
        if run.cause not in state.verdicts:
            return run
    unscored = [
        key
        for key in state.closed
        if key in state.featured
        and key not in state.scored
        and state.trained_through is not None
        and key > state.trained_through
    ]
    if unscored:
        first, last = _first_block(state.closed, unscored)
        cause = f"windows {first} to {last} unscored by version {state.champion_version}"
        return NextRun(job=Job.SCORE, cause=cause, first=first, last=last)
    unjudged = [k for k in state.matured if k in state.scored and k not in state.judged]
    if unjudged:
        first, last = _first_block(state.closed, unjudged)
        cause = f"labels of {first} to {last} matured for version {state.champion_version}"
        return NextRun(job=Job.SCORE, cause=cause, first=first, last=last)
    return None


def split_windows(
    declaration: ModelDeclaration, usable: list[str]
) -> tuple[list[str], list[str]] | None:
    """Divide matured windows into those to train on and the exam.

    Args:
        declaration: The model.
        usable: Keys of matured windows that have features, oldest first.

    Returns:
        Training keys and exam keys, or None while there are too few windows.
    """
    exam = declaration.exam.windows
    training = usable[:-exam]
    if len(training) < declaration.training.min_windows:
        return None
    if declaration.training.max_windows is not None:
        training = training[-declaration.training.max_windows :]
    return training, usable[-exam:]


def _first_training(declaration: ModelDeclaration, state: LifecycleState) -> NextRun | None:
    usable = [key for key in state.matured if key in state.featured]
    if split_windows(declaration, usable) is None:
        return None
    run = NextRun(job=Job.RETRAIN, cause=f"no champion; {len(usable)} windows to {usable[-1]}")
    return None if run.cause in state.verdicts else run


def _first_block(order: tuple[str, ...], keys: list[str]) -> tuple[str, str]:
    # A partition range must be contiguous, so that nothing in between is done again.
    positions = [order.index(key) for key in keys]
    last = positions[0]
    for position in positions[1:]:
        if position != last + 1:
            break
        last = position
    return order[positions[0]], order[last]
