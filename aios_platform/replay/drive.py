"""Drives the platform through the past: the real plan and jobs, with the clock of each day.

There is no code path of its own: at each moment at which a window closes or its labels are
complete, the plan is asked what it wants, as a sensor would ask it, and its runs are executed.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aios_platform.components.model_lifecycle.asking import MOST_ATTEMPTS
from aios_platform.components.model_lifecycle.freshness import look_at_freshness
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.plan import Job, NextRun
from aios_platform.components.model_lifecycle.runner import RunResult, run_until_done
from aios_platform.errors import LifecycleError
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import entries
from aios_platform.replay.clocks import Tick, ticks
from aios_platform.replay.progress import (
    EveryTraining,
    FailedTraining,
    Progress,
    RunDone,
    read_progress,
    write_progress,
)
from aios_platform.replay.ray_trainer import RayYardstickTrainer
from aios_platform.replay.taking_up import TRAINING_STEPS, forget_deaths, unnoted_runs, window_of
from aios_platform.replay.yardstick_trainer import YardstickTrainer
from aios_platform.replay.yardsticks import pin_every
from aios_platform.settings import settings

if TYPE_CHECKING:
    import dagster as dg

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.resources.stores import Stores

logger = logging.getLogger(__name__)

Trainer = YardstickTrainer | RayYardstickTrainer


@dataclass(frozen=True)
class Moment:
    """One moment that is done.

    Attributes:
        tick: The moment.
        results: Its runs, in order.
        seconds: Wall time of the runs.
    """

    tick: Tick
    results: tuple[RunResult, ...]
    seconds: float


def begin(
    names: Names, stores: "Stores", first: str, last: str, *, yardsticks: bool
) -> tuple[Progress, list[Tick]]:
    """The progress of a replay, new or taken up, and the moments that are left to do.

    Raises:
        LifecycleError: The windows are not the schedule's, the model has a life of its own here,
            or another replay was begun.
    """
    declaration = names.declaration
    try:
        # '2013-4' is read as a key, too; kept, it would not sort among the others.
        first, last = (declaration.windows.window(key).key for key in (first, last))
        moments = ticks(declaration, first, last)
    except ValueError as error:
        raise LifecycleError(
            f"{names.model} cannot be replayed: {error}.",
            remedy="Give --from and --to as keys of its windows, e.g. "
            f"{declaration.windows.start.strftime(declaration.windows.key_format)}.",
        ) from error
    progress = read_progress(stores.artifacts, names.model)
    digest = declaration.fingerprint
    if progress is None:
        _refuse_a_life(names, stores)
        progress = Progress(
            model=names.model,
            first=first,
            last=last,
            declaration_digest=digest,
            yardsticks=yardsticks,
        )
    _refuse_another(progress, first, last, digest, yardsticks=yardsticks)
    return progress, [t for t in moments if progress.through is None or t.clock > progress.through]


def drive(
    names: Names,
    definitions: "dg.Definitions",
    instance: "dg.DagsterInstance",
    stores: "Stores",
    progress: Progress,
    moments: list[Tick],
) -> Iterator[Moment]:
    """Live through the moments, yielding each when it is done.

    Killed at any point, the same replay goes on where it was: finished runs are not done again.

    Args:
        names: The model.
        definitions: The loaded code location.
        instance: Where runs are recorded.
        stores: Where everything is.
        progress: As `begin` gave it.
        moments: As `begin` gave them.

    Raises:
        LifecycleError: The plan does not come to an end, or another process runs it.
        DatabaseUnavailable: Postgres went away.
    """
    with stores.database.exclusive(f"replay {names.model}") as mine:
        if not mine.held:
            raise LifecycleError(
                f"Another `aios replay {names.model}` is at work here.",
                remedy="Wait for its end; the same command then does what is left.",
            )
        yield from _moments(names, definitions, instance, stores, progress, moments)


def _moments(
    names: Names,
    definitions: "dg.Definitions",
    instance: "dg.DagsterInstance",
    stores: "Stores",
    progress: Progress,
    moments: list[Tick],
) -> Iterator[Moment]:
    store, database = stores.artifacts, stores.database
    forget_deaths(names, instance, database)
    unnoted = unnoted_runs(names, instance, progress, moments)
    progress = progress.model_copy(update={"runs": (*progress.runs, *unnoted)})
    write_progress(store, progress)
    end = names.declaration.windows.window(progress.last).end
    with _trainer(names, store) as trainer:
        for asked in progress.asked:
            trainer.ask(asked)
        for tick in moments:
            results, begun = [], time.perf_counter()
            last = begun
            for result in run_until_done(
                names, definitions, instance, store, database, tick.clock,
                most_attempts=MOST_ATTEMPTS,
            ):  # fmt: skip
                results.append(result)
                done = _done(result, tick, time.perf_counter() - last)
                progress = progress.model_copy(update={"runs": (*progress.runs, done)})
                write_progress(store, progress)
                last = time.perf_counter()
            look_at_freshness(names, store, database, tick.clock, past=True)
            seconds = time.perf_counter() - begun
            # After the last window closed there is nothing left to score with it.
            if progress.yardsticks and tick.matured and tick.clock < end:
                progress = _with_yardstick(names, stores, progress, tick, results, trainer)
            progress = _with_trained(progress, trainer)
            progress = progress.model_copy(update={"through": tick.clock})
            write_progress(store, progress)
            yield Moment(tick, tuple(results), seconds)
        write_progress(store, _with_trained(progress, trainer, wait=True))


_ELSEWHERE = (
    "Replay into a home of its own: AIOS_HOME=.aios-replay aios replay ... (or remove this one's "
    "state with `make clean`)."
)


def _refuse_another(
    progress: Progress, first: str, last: str, digest: str, *, yardsticks: bool
) -> None:
    """A replay is taken up as it was begun, or not at all."""
    different = {
        "other windows": (progress.first, progress.last) != (first, last),
        "another declaration": progress.declaration_digest != digest,
        "other yardsticks": progress.yardsticks != yardsticks,
    }
    found = " and ".join(what for what, differs in different.items() if differs)
    if found:
        raise LifecycleError(
            f"A replay of {progress.model} from {progress.first} to {progress.last} is here "
            f"already, with {found}.",
            remedy=_ELSEWHERE,
        )


def _refuse_a_life(names: Names, stores: "Stores") -> None:
    """A replay makes champions and predictions: never among those of a model that is in use."""
    rows = entries(stores.database, subject=names.model, limit=1)
    if rows or stores.artifacts.keys(names.raw_rows):
        raise LifecycleError(
            f"{names.model} has a life of its own here; a replay would mix the past into it.",
            remedy=_ELSEWHERE,
        )


def _done(result: RunResult, tick: Tick, seconds: float) -> RunDone:
    run = result.run
    return RunDone(
        run_id=result.run_id,
        clock=tick.clock,
        job=run.job,
        cause=run.cause,
        first=run.first,
        last=run.last,
        window=_window(run, tick),
        seconds=seconds,
        training_seconds=_training_seconds(result),
        failure=result.failure,
    )


def _training_seconds(result: RunResult) -> float:
    return sum(stage.seconds for stage in result.stages if stage.name in TRAINING_STEPS)


def _window(run: NextRun, tick: Tick) -> str:
    """The window that a run is counted to: its newest, or the one whose labels led to it."""
    if run.job in (Job.SCORE, Job.MEASURE) and run.last is not None:
        return run.last
    return window_of(tick)


def _with_yardstick(
    names: Names,
    stores: "Stores",
    progress: Progress,
    tick: Tick,
    results: list[RunResult],
    trainer: Trainer,
) -> Progress:
    """Have the yardstick trained with the windows that have just matured, beside a champion."""
    champion = champion_of(stores.database, names.model)
    if champion is None or champion.live_from is None or champion.live_from > tick.clock:
        return progress
    shared = sum(_training_seconds(result) for result in results)
    try:
        pinned = pin_every(names, stores, tick.matured[-1], tick.clock, shared_seconds=shared)
    except LifecycleError as error:
        logger.warning("No yardstick at %s: %s", tick.matured[-1], error)
        return progress
    if isinstance(pinned, EveryTraining):
        return progress.model_copy(update={"every": (*progress.every, pinned)})
    trainer.ask(pinned)
    return progress.model_copy(update={"asked": (*progress.asked, pinned)})


def _trainer(names: Names, store: "ArtifactStore") -> Trainer:
    address = settings().ray_address
    if address is None:
        return YardstickTrainer(names.declaration, store)
    return RayYardstickTrainer(names.declaration, store, settings().artifact_root, address)


def _with_trained(progress: Progress, trainer: Trainer, *, wait: bool = False) -> Progress:
    """The progress with the yardsticks that have been trained meanwhile."""
    for training in trainer.trained(wait=wait):
        if isinstance(training, FailedTraining):
            logger.warning("No yardstick at %s: %s", training.window, training.reason)
            progress = progress.model_copy(update={"asked": progress.asked[1:]})
            continue
        every = sorted((*progress.every, training), key=lambda each: each.clock)
        progress = progress.model_copy(
            update={
                "every": tuple(every),
                "asked": progress.asked[1:],
                "yardstick_seconds": progress.yardstick_seconds + training.seconds,
            }
        )
    return progress
