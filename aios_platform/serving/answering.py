"""From a batch of requests to its answers: features, tiers, fallbacks, confidence, records."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.serving import Serving
from aios_platform.errors import (
    AiosError,
    DeadlineExceeded,
    RequestRefused,
    ScoringError,
)
from aios_platform.inference.conformal import prediction_sets
from aios_platform.serving import metrics
from aios_platform.serving.batches import Batch, BatchBuilder, unread
from aios_platform.serving.contract import InputContract
from aios_platform.serving.fallbacks import HOPS, Fallbacks
from aios_platform.serving.features import FeatureBlock, OnlineReader
from aios_platform.serving.problems import traced
from aios_platform.serving.scoring import Scorer
from aios_platform.serving.version import ServedVersion
from aios_platform.serving.work import Work

logger = logging.getLogger(__name__)

# Share of the time left that reading features may take; the rest is for scoring, and fallbacks.
READ_SHARE = 0.5
BOTH = 3
UNAVAILABLE = "feature_unavailable"

Answered = Callable[[Batch], None]


class NoAnswer(ScoringError):
    """Neither the version nor any fallback could answer."""


class Answerer:
    """Answers batches for one model.

    Args:
        serving: How the model answers.
        contract: The newest contract, in which rows are.
        features: The model's inputs.
        reader: Reads the stored features; None: the model takes none.
        fallbacks: Who answers when the version cannot; may be exchanged at any time.
        answered: Called with each batch that was answered, before its requests are: records.
    """

    def __init__(
        self,
        serving: Serving,
        contract: InputContract,
        features: FeatureSchema,
        reader: OnlineReader | None,
        fallbacks: Fallbacks,
        answered: Answered,
    ) -> None:
        self._serving = serving
        self._features = features
        self._batch = BatchBuilder(contract, features, serving.features).build
        self.reader = reader
        views = reader.plan.views if reader is not None else ()
        self._ttls = np.array([np.inf if view.ttl is None else view.ttl for view in views])
        self.fallbacks = fallbacks
        self._answered = answered
        self._score = Scorer(serving)

    def answer(self, works: list[Work], version: ServedVersion) -> Awaitable[None] | None:
        """Answer a batch: at once where that takes less than handing it over."""
        now = time.monotonic()
        for work in works:
            work.taken = now
            version.metrics.queue_wait.observe(now - work.arrived)
        quick = version.is_quick(sum(work.count for work in works))
        if quick and (self.reader is None or all(w.frame for w in works)):
            return self._at_once(works, version)
        return self._in_turn(works, version, now)

    def _at_once(self, works: list[Work], version: ServedVersion) -> Awaitable[None] | None:
        try:
            batch = self._batch(works, version, None)
            if version.breaker.allows():
                self._score.now(batch, version)
            previous = self._previous(batch)
            if previous is not None and not previous.inline:
                return self._by_previous(batch, previous)
            if previous is not None and previous.breaker.allows():
                self._score.now(batch, previous)
            if not batch.sources:
                self.fallbacks.answer(batch, self._serving)
            self._finish(batch)
        except Exception as error:
            _fail(works, error)
        return None

    async def _by_previous(self, batch: Batch, previous: ServedVersion) -> None:
        try:
            await self._score.in_turn(batch, previous)
            if not batch.sources:
                self.fallbacks.answer(batch, self._serving)
            self._finish(batch)
        except Exception as error:
            _fail(batch.works, error)

    async def _in_turn(self, works: list[Work], version: ServedVersion, now: float) -> None:
        try:
            deadline = max(work.deadline for work in works)
            block = await self._read(works, READ_SHARE * (deadline - now))
            batch = self._batch(works, version, block)
            if block is not None:
                batch.stages.append(("features", now, time.monotonic()))
            if not (batch.diverted is not None and batch.diverted.all()):
                await self._score.in_turn(batch, version)
            previous = self._previous(batch)
            if previous is not None:
                await self._score.in_turn(batch, previous)
            if not batch.sources or batch.diverted is not None:
                self.fallbacks.answer(batch, self._serving)
            self._finish(batch)
        except Exception as error:
            _fail(works, error)

    def _previous(self, batch: Batch) -> ServedVersion | None:
        """The version to ask when the first one failed."""
        if batch.sources or (batch.diverted is not None and batch.diverted.all()):
            return None
        previous = self.fallbacks.previous
        if previous is None or not all(previous.may_answer(work.tiers) for work in batch.works):
            return None
        return previous

    async def _read(self, works: list[Work], seconds: float) -> FeatureBlock | None:
        rows = [row for work in works if work.frame is None for row in work.rows or ()]
        if self.reader is None or not rows:
            return None
        moments = np.concatenate([work.moments for work in works if work.frame is None])
        try:
            return await asyncio.wait_for(self.reader.read(rows, moments), max(seconds, 0.001))
        except TimeoutError:
            why = "no answer in time"
        except Exception as error:
            why = error.what if isinstance(error, AiosError) else traced(error)
        logger.warning("The features of %d rows could not be read: %s", len(rows), why)
        return unread(self._features, len(self.reader.plan.views), len(rows))

    def _finish(self, batch: Batch) -> None:
        version, by = batch.version, batch.by
        sets = None
        if by is not None and by.conformal is not None:
            sets = prediction_sets(batch.probabilities, by.conformal)
        unsure = self._unsure(batch, sets)
        ages = self._ages(batch)
        now = time.monotonic()
        # Rows that were diverted say nothing of the version: it was not asked for them.
        asked = batch.diverted is None or not batch.diverted.all()
        first = 0
        for work in batch.works:
            rows = slice(first, first + work.count)
            first += work.count
            work.served_by = by
            work.failed = asked and by is not version
            work.stages = batch.stages
            work.probabilities = batch.probabilities[rows]
            work.sources = batch.sources[rows]
            work.ages = None if ages is None else ages[rows]
            work.sets = None if sets is None else sets[rows]
            work.unsure = None if unsure is None else unsure[rows]
            work.error = _error_of(work, batch, rows, now)
        try:
            self._answered(batch)
        except Exception as error:
            logger.error("%d rows were not recorded: %s", batch.rows, traced(error))
        for work in batch.works:
            work.end()

    def _unsure(self, batch: Batch, sets: NDArray[np.uint8] | None) -> NDArray[np.bool_] | None:
        policy = self._serving.uncertainty
        if batch.by is None:
            return None
        if policy.abstain_band is not None:
            low, high = policy.abstain_band.low, policy.abstain_band.high
            unsure = (batch.probabilities >= low) & (batch.probabilities <= high)
        elif policy.abstain and sets is not None:
            unsure = sets == BOTH
        else:
            return None
        hops = [place for place, source in enumerate(batch.sources) if source in HOPS]
        unsure[hops] = False
        if unsure.any():
            batch.version.metrics.abstentions.inc(int(unsure.sum()))
        return unsure

    def _ages(self, batch: Batch) -> NDArray[np.float64] | None:
        """Age of each row's oldest feature at its prediction time, seconds."""
        if batch.block is None or not batch.block.event.shape[1]:
            return None
        event = batch.block.event
        moments = np.concatenate([w.moments for w in batch.works if w.frame is None])
        # A value past its TTL was not used.
        known = moments[:, None] - event <= self._ttls
        oldest = np.where(known, event, np.inf).min(axis=1)
        ages = np.full(batch.rows, np.nan)
        ages[: len(event)] = np.where(known.any(axis=1), np.maximum(moments - oldest, 0), np.nan)
        metrics.FEATURE_AGE.labels(batch.version.model).observe_many(ages)
        return ages


def _error_of(work: Work, batch: Batch, rows: slice, now: float) -> BaseException | None:
    """Why a request gets no answer, if so."""
    if batch.refused is not None and batch.refused[rows].any():
        places = np.flatnonzero(batch.refused[rows])
        return RequestRefused(
            f"A feature is missing or too old for {len(places)} of {work.count} rows, first for "
            f"row {places[0]}.",
            code=UNAVAILABLE,
            remedy="Check the entity keys; features come with the model's windows of data.",
        )
    if "" in work.sources and batch.late:
        return DeadlineExceeded("The model did not answer before the request's deadline.")
    if "" in work.sources:
        return NoAnswer(
            f"Version {batch.version.version} of {batch.version.model} failed, and no declared "
            "fallback could answer.",
            remedy="Try again later.",
        )
    if now > work.deadline:
        return DeadlineExceeded("The answer came after the request's deadline.")
    return None


def _fail(works: Sequence[Work], error: BaseException) -> None:
    """End requests whose batch met an error of the gateway itself."""
    logger.error("A batch of %d requests failed: %s", len(works), traced(error))
    for work in works:
        work.end(error)
