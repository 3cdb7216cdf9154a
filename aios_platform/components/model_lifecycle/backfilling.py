"""Back-fills: past windows scored again, in chunks, with the version of then or one by name."""

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.documents import find_document
from aios_platform.components.model_lifecycle.jobs import BACKFILL, range_tags
from aios_platform.components.model_lifecycle.names import (
    AS_OF_TAG,
    COMMAND,
    LAUNCHED_BY_TAG,
    VERSION_TAG,
    Names,
)
from aios_platform.components.model_lifecycle.runner import StageResult, at_work, execute
from aios_platform.components.model_lifecycle.scorers import live_at, scorer_of
from aios_platform.components.model_lifecycle.state import featured_keys
from aios_platform.contracts.decisions import Champion
from aios_platform.database import Database
from aios_platform.errors import LifecycleError
from aios_platform.ledger.champions import history

logger = logging.getLogger(__name__)

CHUNK = 12


@dataclass(frozen=True)
class Chunk:
    """Windows that one run scores again.

    Attributes:
        windows: Their keys, contiguous, oldest first.
        version: The version that scores them.
    """

    windows: tuple[str, ...]
    version: str


def plan_backfill(
    names: Names,
    store: ArtifactStore,
    database: Database,
    first: str,
    last: str,
    *,
    version: str | None = None,
    chunk: int = CHUNK,
) -> list[Chunk]:
    """What is left of a back-fill: after a kill, the same call gives the rest.

    Args:
        names: The model.
        store: The artifact root.
        database: Where the ledger lives.
        first: Key of the first window.
        last: Key of the last window.
        version: Version that scores; None: for each window the one that was live when it ended.
        chunk: Most windows of one run.

    Raises:
        LifecycleError: A window is not the schedule's or has no features, the version is unknown,
            or none was live then.
        DatabaseUnavailable: The ledger cannot be read.
    """
    keys = _keys(names, first, last)
    featured = featured_keys(names, store)
    absent = [key for key in keys if key not in featured]
    if absent:
        raise LifecycleError(
            f"{_some(absent)} of {names.model} have no features to score.",
            remedy=f"Ingest them first: `aios run {names.model}`.",
        )
    wanted = _versions(names, database, keys, version)
    chunks: list[Chunk] = []
    for key in keys:
        if _is_done(names, store, key, wanted[key]):
            continue
        before = chunks[-1] if chunks else None
        if (
            before is not None
            and before.version == wanted[key].version
            and len(before.windows) < chunk
            and names.declaration.windows.shift(before.windows[-1], 1) == key
        ):
            chunks[-1] = Chunk((*before.windows, key), before.version)
        else:
            chunks.append(Chunk((key,), wanted[key].version))
    return chunks


def backfill(
    names: Names,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    database: Database,
    chunks: list[Chunk],
) -> Iterator[tuple[Chunk, tuple[StageResult, ...]]]:
    """Score the chunks, a Dagster run each, yielding each when it has ended.

    Predictions that are there are not overwritten: the new ones are a version of their own, and
    the figures of the window are restated with their history.

    Raises:
        LifecycleError: A run failed, or another process is at work on the model.
        DatabaseUnavailable: Postgres went away.
    """
    with at_work(names, instance, database):
        job = definitions.resolve_job_def(names.job(BACKFILL))
        for chunk in chunks:
            logger.info(
                "%s  back-fill of %s by version %s", names.model, _some(chunk.windows),
                chunk.version,
            )  # fmt: skip
            run_id = str(uuid.uuid4())
            tags = {
                **range_tags(chunk.windows[0], chunk.windows[-1]),
                VERSION_TAG: chunk.version,
                AS_OF_TAG: datetime.now(UTC).isoformat(),
                LAUNCHED_BY_TAG: COMMAND,
            }
            stages, failure = execute(job, instance, run_id, tags, f"{names.model}'s back-fill")
            if failure:
                raise LifecycleError(
                    f"The back-fill of {_some(chunk.windows)} of {names.model} failed: {failure}",
                    remedy=f"Mend the cause and run the same command again (run {run_id}).",
                )
            yield chunk, stages


def _keys(names: Names, first: str, last: str) -> list[str]:
    schedule = names.declaration.windows
    try:
        begin, end = schedule.window(first), schedule.window(last)
    except ValueError as error:
        raise LifecycleError(
            f"{names.model} cannot be back-filled: {error}.",
            remedy="Give --from and --to as keys of its windows.",
        ) from error
    keys = [w.key for w in schedule.windows(end.end) if w.start >= begin.start]
    if not keys:
        raise LifecycleError(
            f"The last window {last} lies before the first, {first}.", remedy="Swap them."
        )
    return keys


def _versions(
    names: Names, database: Database, keys: list[str], version: str | None
) -> dict[str, Champion]:
    if version is not None:
        scorer = scorer_of(names, database, version)
        return dict.fromkeys(keys, scorer)
    champions = history(database, names.model)
    found = {key: live_at(champions, names.declaration.windows.window(key).end) for key in keys}
    nobody = [key for key, champion in found.items() if champion is None]
    if nobody:
        raise LifecycleError(
            f"No version of {names.model} was live when {_some(nobody)} ended.",
            remedy="Name the version that is to score them: --version V.",
        )
    return {key: champion for key, champion in found.items() if champion is not None}


def _is_done(names: Names, store: ArtifactStore, key: str, scorer: Champion) -> bool:
    """Whether the window's current predictions are the version's, of today's rows, and measured."""
    from aios_platform.monitoring.drift import DriftReport
    from aios_platform.monitoring.performance import Performance

    current = store.current(names.predictions, key)
    frame = store.current(names.frames, key)
    if current is None or frame is None or current.inputs.get(frame.dataset) != frame.digest:
        return False
    if current.inputs.get("model_digest") != scorer.model_digest:
        return False
    measured = find_document(names, store, "performance", key, Performance)
    watched = find_document(names, store, "drift", key, DriftReport)
    return (
        measured is not None
        and measured.predictions_digest == current.digest
        and watched is not None
        and watched.model_version == scorer.version
    )


def _some(keys: "tuple[str, ...] | list[str]") -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]} ({len(keys)} windows)"
