"""Who of the callers' entities a canary answers, and what a candidate makes of mirrored traffic."""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.rollouts import Rollout
from aios_platform.errors import ScoringError
from aios_platform.serving import metrics
from aios_platform.serving.batches import Batch
from aios_platform.serving.contract import Row
from aios_platform.serving.fallbacks import HOPS
from aios_platform.serving.problems import traced
from aios_platform.serving.recording import ShadowPair
from aios_platform.serving.version import ServedVersion
from aios_platform.serving.work import Work

logger = logging.getLogger(__name__)

BUCKETS = 10_000


class CanarySplit:
    """Sticky assignment: an entity stays with the version it got while the share only rises.

    Args:
        rollout: The rollout; another one assigns anew.
        places: Places of the entity keys in a row.
    """

    def __init__(self, rollout: Rollout, places: Sequence[int]) -> None:
        self._places = tuple(places)
        self._salt = f"{rollout.model}:{rollout.number}:"
        self._most = rollout.share * BUCKETS

    def takes(self, row: Row) -> bool:
        """Whether the candidate answers this row."""
        text = self._salt + "\0".join([str(row[place]) for place in self._places])
        return zlib.crc32(text.encode("utf-8", "surrogatepass")) % BUCKETS < self._most


class Parts:
    """Puts the answers of a request together that two versions share.

    Args:
        whole: The request; what is counted, recorded and reviewed are its parts.
        chosen: Rows of each part, by their place among those of the request.
    """

    def __init__(self, whole: Work, chosen: Sequence[list[int]]) -> None:
        self._whole = whole
        self._chosen = chosen
        self._left = len(chosen)
        whole.parts = [self._part(whole, rows) for rows in chosen]

    def _part(self, whole: Work, chosen: list[int]) -> Work:
        assert whole.rows is not None
        part = Work(
            whole.request_id,
            whole.contract,
            [whole.rows[place] for place in chosen],
            None,
            whole.moments[chosen],
            [whole.ids[place] for place in chosen],
            whole.arrived,
            whole.deadline,
            self._done,
            tiers=whole.tiers,
        )
        part.places = [whole.places[place] for place in chosen]
        part.recorded = whole.recorded
        return part

    def _done(self, _: Work) -> None:
        self._left -= 1
        if self._left:
            return
        whole = self._whole
        whole.served = [served for part in whole.parts for served in part.served]
        failed = next((part.error for part in whole.parts if part.error is not None), None)
        if failed is not None:
            whole.end(failed)
            return
        shape = whole.parts[0].probabilities.shape[1:]
        whole.probabilities = np.empty((whole.count, *shape), dtype=np.float32)
        sources, versions = [""] * whole.count, [""] * whole.count
        for part, chosen in zip(whole.parts, self._chosen, strict=True):
            whole.probabilities[chosen] = part.probabilities
            by = (part.served_by or part.version).version
            for place, source in zip(chosen, part.sources, strict=True):
                sources[place], versions[place] = source, by
        whole.sources, whole.versions = sources, versions
        whole.served_by = whole.parts[0].served_by
        whole.ages = self._merged([part.ages for part in whole.parts], np.nan)
        whole.unsure = self._merged([part.unsure for part in whole.parts], False)
        if all(part.sets is not None for part in whole.parts):
            whole.sets = self._merged([part.sets for part in whole.parts], 0)
        whole.end()

    def _merged(self, values: Sequence[NDArray[Any] | None], unknown: object) -> Any:
        """One array of those of the parts; None where no part has one."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        merged = np.full(self._whole.count, unknown, dtype=known[0].dtype)
        for value, chosen in zip(values, self._chosen, strict=True):
            if value is not None:
                merged[chosen] = value
        return merged


class Shadow:
    """A candidate that scores what the live version scored, off the hot path.

    Args:
        candidate: The version.
        rollout: The rollout it belongs to.
        pair: Takes each compared row; called from the candidate's thread.
        waiting_rows: Most rows that wait; further ones are passed over.
    """

    def __init__(
        self,
        candidate: ServedVersion,
        rollout: Rollout,
        pair: Callable[[ShadowPair], None],
        *,
        waiting_rows: int = 4096,
    ) -> None:
        self._candidate = candidate
        self._rollout = rollout
        self._pair = pair
        self._limit = waiting_rows
        self._waiting = 0
        self._lock = threading.Lock()
        self._mirrored = metrics.SHADOW_ROWS.labels(candidate.model, candidate.version)

    def mirror(self, batch: Batch) -> None:
        """Score a batch once more, with the candidate; returns at once."""
        with self._lock:
            if batch.by is not batch.version or self._waiting + batch.rows > self._limit:
                return
            self._waiting += batch.rows
        self._mirrored.inc(batch.rows)
        self._candidate.executor.submit(self._compare, batch, time.time())

    def _compare(self, batch: Batch, served_at: float) -> None:
        try:
            self._score(batch, served_at)
        except Exception as error:
            logger.error("%d rows were not compared: %s", batch.rows, traced(error))
        finally:
            with self._lock:
                self._waiting -= batch.rows

    def _score(self, batch: Batch, served_at: float) -> None:
        failure = None
        start = time.perf_counter()
        try:
            answers: list[float | None] = list(
                self._candidate.figures(
                    self._candidate.score(batch.matrix, batch.texts).probabilities
                ).tolist()
            )
        except ScoringError as error:
            answers, failure = [None] * batch.rows, error.what[:500]
        seconds = (time.perf_counter() - start) / batch.rows
        live = batch.version.figures(batch.probabilities)
        row = -1
        for work in batch.works:
            for place in work.places:
                row += 1
                if batch.sources[row] in HOPS:
                    # Another hop answered it: there is nothing to compare with.
                    continue
                self._pair(
                    ShadowPair(
                        model=self._candidate.model,
                        rollout=self._rollout.number,
                        request_id=work.request_id,
                        place=place,
                        live_version=batch.version.version,
                        version=self._candidate.version,
                        live=float(live[row]),
                        candidate=answers[row],
                        failure=failure,
                        live_seconds=batch.seconds / batch.rows,
                        seconds=seconds,
                        served_at=served_at,
                    )
                )
