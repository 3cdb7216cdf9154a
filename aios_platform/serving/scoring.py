"""One version scores one batch: by its tiers, within its time, and watched by its breaker."""

import asyncio
import logging
import time

import numpy as np

from aios_platform.contracts.serving import Hop, Serving
from aios_platform.errors import ScoringError
from aios_platform.serving import metrics
from aios_platform.serving.batches import Batch
from aios_platform.serving.version import Scores, ServedVersion

logger = logging.getLogger(__name__)

# Share of the time left that scoring may take; the rest is for the fallbacks.
SCORE_SHARE = 0.7


class Scorer:
    """Lets versions score batches; a batch whose version fails has no sources afterwards.

    Args:
        serving: How the model answers.
    """

    def __init__(self, serving: Serving) -> None:
        self._deadline_ms = serving.deadline_ms
        self._tiers = [tier.name for tier in serving.tiers]

    def now(self, batch: Batch, version: ServedVersion) -> None:
        """Score on the event loop."""
        try:
            scores = self._score(batch, version)
        except ScoringError as error:
            self._failed(version, error)
            return
        self._scored(batch, version, scores)

    def _score(self, batch: Batch, version: ServedVersion) -> Scores:
        start = time.monotonic()
        try:
            return self._by_tiers(batch, version)
        finally:
            end = time.monotonic()
            batch.seconds = end - start
            batch.stages.append(("score", start, end))

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

    async def in_turn(self, batch: Batch, version: ServedVersion) -> None:
        """Score where it keeps nobody else waiting, if the version's breaker allows; in time."""
        if not version.breaker.allows():
            return
        left = (batch.deadline - time.monotonic()) * SCORE_SHARE
        if version.is_quick(batch.rows):
            self.now(batch, version)
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
        declared = 0.999 * self._deadline_ms / 1000
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
        version.metrics.prediction.observe_many(version.figures(scores.probabilities))
        if scores.cached is not None:
            hits = int(scores.cached.sum())
            version.metrics.hits.inc(hits)
            version.metrics.misses.inc(batch.rows - hits)
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
