"""From a batch of requests to its answers: features, tiers, fallbacks, confidence, records."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureSchema, FieldKind
from aios_platform.contracts.serving import Hop, Serving, Unavailable
from aios_platform.errors import (
    AiosError,
    DeadlineExceeded,
    RequestRefused,
    ScoringError,
)
from aios_platform.inference.conformal import prediction_sets
from aios_platform.serving import metrics
from aios_platform.serving.contract import InputContract
from aios_platform.serving.engine import Engine, Texts
from aios_platform.serving.features import FeatureBlock, OnlineReader
from aios_platform.serving.version import Scores, ServedVersion
from aios_platform.serving.work import Work

logger = logging.getLogger(__name__)

# Share of the time left that reading features, and then scoring, may take; the rest is for the
# fallbacks.
READ_SHARE = 0.5
SCORE_SHARE = 0.7
BOTH = 3
UNAVAILABLE = "feature_unavailable"


class NoAnswer(ScoringError):
    """Neither the version nor any fallback could answer."""


@dataclass
class Fallbacks:
    """Who answers when the asked version cannot.

    Attributes:
        previous: The newest earlier healthy champion; None: there is none.
        simple: The simple model and the request columns it takes; None: there is none.
    """

    previous: ServedVersion | None = None
    simple: tuple[Engine, tuple[str, ...]] | None = None


@dataclass
class Batch:
    """The rows of several requests, side by side, and what became of them."""

    works: Sequence[Work]
    version: ServedVersion
    matrix: NDArray[np.float32]
    texts: list[list[str]]
    deadline: float
    block: FeatureBlock | None = None
    refused: NDArray[np.bool_] | None = None
    diverted: NDArray[np.bool_] | None = None
    probabilities: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    sources: list[str] = field(default_factory=list)
    by: ServedVersion | None = None
    seconds: float = 0.0
    """Time that scoring took."""
    late: bool = False
    """Whether a version did not answer in time."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.matrix)


Answered = Callable[[Batch], None]


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
        self._numerical = contract.numerical
        self._categorical = range(contract.numerical, contract.numerical + contract.categorical)
        self._features = features
        self._names = {name: place for place, name in enumerate(features.numerical)}
        self._text_names = {name: place for place, name in enumerate(features.categorical)}
        self.reader = reader
        views = reader.plan.views if reader is not None else ()
        self._ttls = np.array([np.inf if view.ttl is None else view.ttl for view in views])
        self.fallbacks = fallbacks
        self._answered = answered
        self._tiers = [tier.name for tier in serving.tiers]

    def answer(self, works: list[Work], version: ServedVersion) -> Awaitable[None] | None:
        """Answer a batch: at once where that takes less than handing it over."""
        now = time.monotonic()
        if len(works) == 1:
            version.metrics.queue_wait.observe(now - works[0].arrived)
        else:
            waits = np.fromiter((now - work.arrived for work in works), float, len(works))
            metrics.observe_many(version.metrics.queue_wait, waits)
        if version.inline and (self.reader is None or all(w.frame for w in works)):
            self._at_once(works, version)
            return None
        return self._in_turn(works, version, now)

    def _at_once(self, works: list[Work], version: ServedVersion) -> None:
        try:
            batch = self._batch(works, version, None)
            if version.breaker.allows():
                self._score_now(batch, version)
            previous = self._previous(batch)
            if previous is not None and previous.inline and previous.breaker.allows():
                self._score_now(batch, previous)
            if not batch.sources:
                self._fall_back(batch)
            self._finish(batch)
        except Exception as error:
            _fail(works, error)

    async def _in_turn(self, works: list[Work], version: ServedVersion, now: float) -> None:
        try:
            deadline = max(work.deadline for work in works)
            block = await self._read(works, READ_SHARE * (deadline - now))
            batch = self._batch(works, version, block)
            if not (batch.diverted is not None and batch.diverted.all()):
                await self._score_in_thread(batch, version)
            previous = self._previous(batch)
            if previous is not None:
                await self._score_in_thread(batch, previous)
            if not batch.sources or batch.diverted is not None:
                self._fall_back(batch)
            self._finish(batch)
        except Exception as error:
            _fail(works, error)

    def _previous(self, batch: Batch) -> ServedVersion | None:
        """The version to ask when the first one failed."""
        if batch.sources or (batch.diverted is not None and batch.diverted.all()):
            return None
        return self.fallbacks.previous if Hop.PREVIOUS in self._serving.fallback else None

    async def _read(self, works: list[Work], seconds: float) -> FeatureBlock | None:
        rows = [row for work in works if work.frame is None for row in work.rows or ()]
        if self.reader is None or not rows:
            return None
        moments = np.concatenate([work.moments for work in works if work.frame is None])
        try:
            return await asyncio.wait_for(self.reader.read(rows, moments), max(seconds, 0.001))
        except (TimeoutError, AiosError) as error:
            logger.warning(
                "The features of %d rows could not be read: %s",
                len(rows), error or "no answer in time",
            )  # fmt: skip
            return self._unread(len(rows))

    def _unread(self, rows: int) -> FeatureBlock:
        """What is known of the stored features when they could not be read: nothing."""
        stored = [feature for feature in self._features.fields if feature.origin != "request"]
        numbers = sum(feature.kind is FieldKind.NUMERICAL for feature in stored)
        words = len(stored) - numbers
        return FeatureBlock(
            matrix=np.full((rows, numbers), np.nan, dtype=np.float32),
            texts=tuple([""] * rows for _ in range(words)),
            event=np.full((rows, len(self.reader.plan.views) if self.reader else 0), np.nan),
            missing=np.ones(rows, dtype=bool),
            stale=np.zeros(rows, dtype=bool),
            unreachable=np.ones(rows, dtype=bool),
        )

    def _batch(
        self, works: list[Work], version: ServedVersion, block: FeatureBlock | None
    ) -> Batch:
        """The model's inputs, request by request where some came as whole frames."""
        # One caller's haste must not cost the others of the batch their answers.
        deadline = max(work.deadline for work in works)
        plain = [work for work in works if work.frame is None]
        if plain == works:
            matrix, texts = self._inputs(works, block)
            batch = Batch(works, version, matrix, texts, deadline, block)
        else:
            # Frames last: the rows before them are those of the block.
            works[:] = [*plain, *(work for work in works if work.frame is not None)]
            parts = [self._inputs(plain, block)] if plain else []
            parts += [work.frame for work in works if work.frame is not None]
            matrix = np.concatenate([part[0] for part in parts])
            texts = [
                [word for part in parts for word in part[1][place]]
                for place in range(len(self._text_names))
            ]
            batch = Batch(works, version, matrix, texts, deadline, block)
        if block is not None:
            self._sort_out(batch, block)
        return batch

    def _inputs(
        self, works: Sequence[Work], block: FeatureBlock | None
    ) -> tuple[NDArray[np.float32], list[list[str]]]:
        rows = works[0].rows if len(works) == 1 else [r for w in works for r in w.rows or ()]
        assert rows is not None
        if self._numerical:
            matrix = np.array([row[: self._numerical] for row in rows], dtype=np.float32)
        else:
            matrix = np.empty((len(rows), 0), dtype=np.float32)
        texts = [[row[place] or "" for row in rows] for place in self._categorical]
        if block is not None:
            matrix = np.concatenate([matrix, block.matrix], axis=1)
            texts += block.texts
        return matrix, texts

    def _sort_out(self, batch: Batch, block: FeatureBlock) -> None:
        """Which rows are refused or diverted, as the declaration says of their features."""
        policy = self._serving.features
        for flags, reason, then in (
            (block.unreachable, "unreachable", policy.unreachable),
            (block.missing & ~block.unreachable, "missing", policy.missing),
            (block.stale, "stale", policy.stale),
        ):
            if not flags.any():
                continue
            metrics.UNAVAILABLE.labels(batch.version.model, reason).inc(int(flags.sum()))
            wide = np.zeros(batch.rows, dtype=bool)
            wide[: len(flags)] = flags
            if then is Unavailable.REFUSE:
                batch.refused = wide if batch.refused is None else batch.refused | wide
            elif then is Unavailable.FALLBACK:
                batch.diverted = wide if batch.diverted is None else batch.diverted | wide

    def _score_now(self, batch: Batch, version: ServedVersion) -> None:
        try:
            scores = self._score(batch, version)
        except ScoringError as error:
            self._failed(version, error)
            return
        self._scored(batch, version, scores)

    def _score(self, batch: Batch, version: ServedVersion) -> Scores:
        start = time.perf_counter()
        try:
            return self._by_tiers(batch, version)
        finally:
            batch.seconds = time.perf_counter() - start

    def _by_tiers(self, batch: Batch, version: ServedVersion) -> Scores:
        tiers = batch.works[0].tiers
        if all(work.tiers == tiers for work in batch.works):
            return version.score(batch.matrix, batch.texts, tiers)
        # Requests with bounds of their own are scored one by one.
        parts, first = [], 0
        for work in batch.works:
            rows = slice(first, first + work.count)
            parts.append(
                version.score(
                    batch.matrix[rows], [column[rows] for column in batch.texts], work.tiers
                )
            )
            first += work.count
        cached = [part.cached for part in parts if part.cached is not None]
        return Scores(
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.tiers for part in parts]),
            np.concatenate(cached) if cached else None,
        )

    async def _score_in_thread(self, batch: Batch, version: ServedVersion) -> None:
        if not version.breaker.allows():
            return
        left = (batch.deadline - time.monotonic()) * SCORE_SHARE
        if version.inline:
            self._score_now(batch, version)
            return
        loop = asyncio.get_running_loop()
        try:
            scores = await asyncio.wait_for(
                loop.run_in_executor(version.executor, self._score, batch, version),
                max(left, 0.001),
            )
        except TimeoutError:
            batch.late = True
            if self._hasty(batch):
                # It says nothing about the version, which the next batch waits for.
                return
            version.abandon()
            self._failed(version, TimeoutError(f"no answer within {max(left, 0):.3f} s"))
            return
        except ScoringError as error:
            self._failed(version, error)
            return
        self._scored(batch, version, scores)

    def _hasty(self, batch: Batch) -> bool:
        """Whether the callers allowed less time than the declaration does."""
        # A little less than declared: what is subtracted below was rounded.
        declared = 0.999 * self._serving.deadline_ms / 1000
        return all(work.deadline - work.arrived < declared for work in batch.works)

    def _failed(self, version: ServedVersion, error: BaseException) -> None:
        version.breaker.failed()
        version.metrics.breaker.set(version.breaker.is_open)
        logger.error("%s version %s failed: %s", version.model, version.version, error)

    def _scored(self, batch: Batch, version: ServedVersion, scores: Scores) -> None:
        if version.breaker.is_open:
            version.metrics.breaker.set(0)
        version.breaker.succeeded()
        version.metrics.batch_rows.observe(batch.rows)
        batch.by = version
        batch.probabilities = scores.probabilities
        if version is not batch.version:
            batch.sources = [Hop.PREVIOUS.value] * batch.rows
            metrics.FALLBACKS.labels(version.model, Hop.PREVIOUS).inc(batch.rows)
            return
        if len(self._tiers) == 1:
            batch.sources = self._tiers * batch.rows
        else:
            batch.sources = [self._tiers[place] for place in scores.tiers]
        if scores.cached is not None:
            for row in np.flatnonzero(scores.cached):
                batch.sources[row] = "cache"

    def _fall_back(self, batch: Batch) -> None:
        """The simple model or the safe default, for all rows or for those that were diverted."""
        where = (
            np.arange(batch.rows)
            if not batch.sources or batch.diverted is None
            else np.flatnonzero(batch.diverted)
        )
        if batch.refused is not None:
            where = where[~batch.refused[where]]
        if not batch.sources:
            batch.sources = [""] * batch.rows
            batch.probabilities = np.full(batch.rows, np.nan, dtype=np.float32)
        elif not batch.probabilities.flags.writeable:
            batch.probabilities = batch.probabilities.copy()
        batch.probabilities[where] = np.nan
        hop: Hop | None = None
        found: NDArray[np.float32] | float | None = None
        for hop in self._serving.fallback:
            if hop is Hop.SIMPLE and self.fallbacks.simple is not None:
                try:
                    found = self._simple(batch, where)
                except ScoringError as error:
                    logger.error("The simple model of %s failed: %s", batch.version.model, error)
                    continue
                break
            if hop is Hop.DEFAULT and self._serving.safe_default is not None:
                found = self._serving.safe_default
                break
        if found is None or hop is None:
            for row in where:
                batch.sources[row] = ""
            return
        batch.probabilities[where] = found
        for row in where:
            batch.sources[row] = hop.value
        metrics.FALLBACKS.labels(batch.version.model, hop).inc(len(where))

    def _simple(self, batch: Batch, where: NDArray[np.intp]) -> NDArray[np.float32]:
        assert self.fallbacks.simple is not None
        engine, names = self.fallbacks.simple
        columns = [self._names[name] for name in names if name in self._names]
        words = [self._text_names[name] for name in names if name in self._text_names]
        texts: Texts = [[batch.texts[place][row] for row in where] for place in words]
        return engine.run(np.ascontiguousarray(batch.matrix[where][:, columns]), texts)

    def _finish(self, batch: Batch) -> None:
        version, by = batch.version, batch.by
        sets = None
        if by is not None and by.conformal is not None:
            sets = prediction_sets(batch.probabilities, by.conformal)
        unsure = self._unsure(batch, sets)
        ages = self._ages(batch)
        metrics.observe_many(version.metrics.prediction, batch.probabilities)
        now = time.monotonic()
        # Rows that were diverted say nothing of the version: it was not asked for them.
        asked = batch.diverted is None or not batch.diverted.all()
        first = 0
        for work in batch.works:
            rows = slice(first, first + work.count)
            first += work.count
            work.served_by = by
            work.failed = asked and by is not version
            work.probabilities = batch.probabilities[rows]
            work.sources = batch.sources[rows]
            work.ages = None if ages is None else ages[rows]
            work.sets = None if sets is None else sets[rows]
            work.unsure = None if unsure is None else unsure[rows]
            work.error = _error_of(work, batch, rows, now)
        self._answered(batch)
        for work in batch.works:
            work.done(work)

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
        hops = [place for place, source in enumerate(batch.sources) if source in _HOPS]
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
        metrics.observe_many(metrics.FEATURE_AGE.labels(batch.version.model), ages)
        return ages


_HOPS = frozenset({Hop.SIMPLE.value, Hop.DEFAULT.value, ""})


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
    logger.exception("A batch of %d requests failed.", len(works), exc_info=error)
    for work in works:
        if work.error is None and not len(work.probabilities):
            work.fail(error)
