"""What a model needs next: a pure function from the state of its lifecycle to the next runs.

The same plan drives `aios run` and `aios replay` (until nothing is left to do), the sensors and the
schedule. That is how a brand-new model bootstraps itself: its windows are ingested, then it is
trained, then the windows after its training are scored, without anybody knowing the order.

A window that does not come, is refused, or fails again and again is passed over: it never stops
the windows after it.
"""

from enum import StrEnum

from pydantic import Field

from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.record import Record, digest_of


class Job(StrEnum):
    """The jobs of a model that the plan asks for."""

    SCORE = "score"
    """Takes windows from the source to their predictions, and watches these."""
    MEASURE = "measure"
    """Holds predictions that are there against labels that have come since."""
    RETRAIN = "retrain"
    PROMOTE = "promote"
    """Carries out a promotion that a person has approved."""


class LifecycleState(Record):
    """What is there, as read from the stores. Keys are window keys, oldest first."""

    closed: tuple[str, ...] = Field(description="Windows that are over.")
    matured: tuple[str, ...] = Field(description="Windows whose labels are complete.")
    featured: frozenset[str] = Field(description="Windows with validated data and features.")
    settled: frozenset[str] = Field(
        default=frozenset(), description="Windows that were read since their labels are complete."
    )
    asked: dict[str, int] = Field(
        default_factory=dict,
        description="Windows that were not delivered or were refused: how often it was tried.",
    )
    passed_over: frozenset[str] = Field(
        default=frozenset(), description="Windows among them whose time to try again is not here."
    )
    champion_version: str | None = None
    trained_through: str | None = Field(
        default=None, description="Last window the champion was trained on."
    )
    scored: frozenset[str] = Field(description="Windows that have predictions.")
    judged: frozenset[str] = Field(
        default=frozenset(), description="Windows with a retrain decision."
    )
    retrain_wanted: str | None = Field(
        default=None,
        description="The decision on the live champion that asks for a retraining, in words.",
    )
    verdicts: frozenset[str] = Field(
        default=frozenset(), description="Causes that already led to a verdict."
    )
    given_up: frozenset[str] = Field(
        default=frozenset(), description="Causes whose runs failed too often."
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
            cause=approval_cause(state.approved),
            request=state.approved,
        )
    missing = [
        key for key in state.closed if key not in state.featured and key not in state.passed_over
    ]
    run = _missing(declaration, state, missing)
    if run is not None:
        return run
    run = _measurement(declaration, state, _unsettled(state))
    if run is not None:
        return run
    if state.champion_version is None:
        return _first_training(declaration, state)
    if state.retrain_wanted is not None:
        run = NextRun(job=Job.RETRAIN, cause=state.retrain_wanted)
        if run.cause not in state.verdicts | state.given_up:
            return run
    unscored = [
        key
        for key in state.closed
        if key in state.featured
        and key not in state.scored
        and state.trained_through is not None
        and key > state.trained_through
    ]
    run = _block(state, Job.SCORE, unscored, "windows {} were never scored")
    if run is not None:
        return run
    unjudged = [key for key in state.matured if key in state.scored and key not in state.judged]
    return _measurement(declaration, state, unjudged)


def _unsettled(state: LifecycleState) -> list[str]:
    """Windows whose labels have come since they were read; what follows needs them."""
    return [
        key
        for key in state.matured
        if key in state.featured and key not in state.settled and key not in state.passed_over
    ]


def approval_cause(request: int) -> str:
    """The cause of a run that carries out an approved request."""
    return f"request {request} was approved"


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


def _missing(
    declaration: ModelDeclaration, state: LifecycleState, missing: list[str]
) -> NextRun | None:
    """The first block of windows that were never asked for, else one to be asked for again."""
    new = [key for key in missing if key not in state.asked]
    run = _block(state, Job.SCORE, new, "new windows {}")
    if run is not None:
        return run
    for key in missing:
        if key not in state.asked:
            continue
        # What the window brings is history to the next ones: their features are made again.
        reach = declaration.features.lookback_windows
        later = [k for k in state.closed if k > key and k in state.featured][:reach]
        last = _contiguous(state.closed, [key, *later])[1]
        run = NextRun(
            job=Job.SCORE,
            cause=f"window {key} asked for again ({state.asked[key]} times before)",
            first=key,
            last=last,
        )
        if run.cause not in state.given_up:
            return run
    return None


def _measurement(
    declaration: ModelDeclaration, state: LifecycleState, unjudged: list[str]
) -> NextRun | None:
    """The first block of windows whose labels matured, with those before that may be restated."""
    cause = "labels of {} matured"
    asked = max((state.asked[key] for key in unjudged if key in state.asked), default=0)
    if asked:
        # A repetition that was refused: its run was green, and it is asked for for ever.
        cause += f", asked for again ({asked} times before)"
    run = _block(state, Job.MEASURE, unjudged, cause)
    if run is None or run.first is None:
        return run
    first, place = run.first, state.closed.index(run.first)
    earliest = max(0, place - declaration.label.corrections_windows)
    for key in reversed(state.closed[earliest:place]):
        if key not in state.featured:
            break
        first = key
    return run.model_copy(update={"first": first})


def _first_training(declaration: ModelDeclaration, state: LifecycleState) -> NextRun | None:
    usable = [key for key in state.matured if key in state.featured]
    if split_windows(declaration, usable) is None:
        return None
    run = NextRun(job=Job.RETRAIN, cause=f"no champion; {len(usable)} windows to {usable[-1]}")
    return None if run.cause in state.verdicts | state.given_up else run


def _block(state: LifecycleState, job: Job, keys: list[str], cause: str) -> NextRun | None:
    """A run over the first contiguous block of windows that was not given up."""
    left = keys
    while left:
        first, last = _contiguous(state.closed, left)
        run = NextRun(job=job, cause=cause.format(_span(first, last)), first=first, last=last)
        if run.cause not in state.given_up:
            return run
        left = [key for key in left if key > last]
    return None


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


def _contiguous(order: tuple[str, ...], keys: list[str]) -> tuple[str, str]:
    # A partition range must be contiguous, so that nothing in between is done again.
    positions = [order.index(key) for key in keys]
    last = positions[0]
    for position in positions[1:]:
        if position != last + 1:
            break
        last = position
    return order[positions[0]], order[last]
