"""What serves one model now: exchanged as a whole when the ledger names another version."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aios_platform.contracts.decisions import Champion
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.rollouts import Rollout, RolloutMode
from aios_platform.errors import AiosError
from aios_platform.features.online_plan import OnlinePlan
from aios_platform.serving.answering import Answerer
from aios_platform.serving.arrow_streams import Shapes
from aios_platform.serving.batches import Batch
from aios_platform.serving.batching import MicroBatcher
from aios_platform.serving.columnar import Columnar
from aios_platform.serving.contract import InputContract
from aios_platform.serving.fallbacks import Fallbacks
from aios_platform.serving.features import OnlineReader
from aios_platform.serving.recording import ServedRows, ShadowPair
from aios_platform.serving.replies import Replies
from aios_platform.serving.traffic_split import CanarySplit, Parts, Shadow
from aios_platform.serving.version import ServedVersion
from aios_platform.serving.work import Work

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
DRAIN_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Loaded:
    """Everything that was read and warmed for a deployment, off the event loop.

    Attributes:
        declaration: The model.
        champion: The champion that it serves.
        live: That version.
        fallbacks: Who answers when it cannot.
        contracts: What callers send, by version of the contract.
        plan: How the stored features are read; None: the model takes none.
    """

    declaration: ModelDeclaration
    champion: Champion
    live: ServedVersion
    fallbacks: Fallbacks
    contracts: Mapping[int, InputContract]
    plan: OnlinePlan | None


@dataclass(frozen=True)
class Trial:
    """A candidate that gets traffic.

    Attributes:
        rollout: As the ledger has it.
        version: The candidate, loaded and warmed.
    """

    rollout: Rollout
    version: ServedVersion


class Deployment:
    """One champion of one model, with all that its answers take. Made on the event loop.

    Args:
        loaded: What was loaded.
        reader: Reads its stored features; None: the model takes none.
        record: Takes served rows.
        pair: Takes what a shadow compared.
    """

    def __init__(
        self,
        loaded: Loaded,
        reader: OnlineReader | None,
        *,
        record: Callable[[ServedRows], None],
        pair: Callable[[ShadowPair], None],
    ) -> None:
        self.loaded = loaded
        self.declaration = loaded.declaration
        self.serving = loaded.declaration.serving
        self.live = loaded.live
        self.contract = loaded.contracts[self.serving.contract.version]
        self.columnar = {
            version: Columnar(contract, self.live.features)
            for version, contract in loaded.contracts.items()
        }
        self.reader = reader
        self.trial: Trial | None = None
        self._record, self._pair = record, pair
        self._shadow: Shadow | None = None
        self._split: CanarySplit | None = None
        self._candidate: MicroBatcher | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self.replies = Replies(
            self.declaration.name,
            self.live.service_digest,
            self.serving.safe_default,
            self.declaration.source.row_id,
            self.declaration.answers,
        )
        self.shapes = Shapes.of(loaded.contracts.values())
        self._answerer = self._answers(loaded.fallbacks)
        self.batcher = self._batcher(self._answerer, self.live)

    def submit(self, work: Work) -> None:
        """Let a request be answered.

        Raises:
            Overloaded: Too many rows wait.
        """
        trial = self.trial
        if (
            self._split is None
            or self._candidate is None
            or work.rows is None
            or trial is None
            or not trial.version.may_answer(work.tiers)
        ):
            work.version = self.live
            self.batcher.put(work)
            return
        theirs = [place for place, row in enumerate(work.rows) if self._split.takes(row)]
        if not theirs:
            work.version = self.live
            self.batcher.put(work)
        elif len(theirs) == work.count:
            self._to_candidate(work, self._candidate)
        else:
            self._to_both(work, theirs, self._candidate)

    def _to_both(self, work: Work, theirs: list[int], candidate: MicroBatcher) -> None:
        chosen = set(theirs)
        Parts(work, [[place for place in range(work.count) if place not in chosen], theirs])
        first, second = work.parts
        # Both have room before either begins.
        candidate.check(second)
        work.version = first.version = self.live
        self.batcher.put(first)
        self._to_candidate(second, candidate)

    def _to_candidate(self, work: Work, batcher: MicroBatcher) -> None:
        assert self.trial is not None
        work.version = self.trial.version
        work.role = "canary"
        batcher.put(work)

    def set_trial(self, trial: Trial | None) -> None:
        """Bring a candidate to traffic, change its share, or take it away."""
        old, batcher = self.trial, self._candidate
        self.trial = trial
        self._shadow = self._split = None
        if trial is None:
            self._candidate = None
        elif trial.rollout.mode is RolloutMode.SHADOW:
            self._candidate = None
            self._shadow = Shadow(trial.version, trial.rollout, self._pair)
        else:
            if self._candidate is None or old is None or old.version is not trial.version:
                fallbacks = Fallbacks(self.live, self.loaded.fallbacks.simple)
                self._candidate = self._batcher(self._answers(fallbacks), trial.version)
            self._split = CanarySplit(trial.rollout, self._entity_places())
        if old is not None and (trial is None or trial.version is not old.version):
            leaving = asyncio.ensure_future(_drain([batcher], old.version))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    def _entity_places(self) -> list[int]:
        """Places of the entity keys; of everything that is sent, where there are none."""
        plan, contract = self.loaded.plan, self.contract
        names = [n for n in (plan.inputs if plan else ()) if n != (plan.moment if plan else None)]
        return [contract.places[name] for name in names] or list(range(contract.taken))

    def _answers(self, fallbacks: Fallbacks) -> Answerer:
        return Answerer(
            self.serving,
            self.contract,
            self.live.features,
            self.reader,
            fallbacks,
            self._answered,
        )

    def _batcher(self, answerer: Answerer, version: ServedVersion) -> MicroBatcher:
        policy = self.serving.batching

        def answer(works: list[Work]) -> Awaitable[None] | None:
            return answerer.answer(works, version)

        return MicroBatcher(
            answer,
            max_rows=policy.max_rows,
            max_delay=policy.max_delay_ms / 1000,
            queue_rows=policy.queue_rows,
            batch_seconds=version.batch_seconds,
        )

    def _answered(self, batch: Batch) -> None:
        if self._shadow is not None:
            self._shadow.mirror(batch)
        if all(work.error is None and work.recorded for work in batch.works):
            self._record(_served(batch, batch.works, None))
            return
        keep, together, first = [], [], 0
        for work in batch.works:
            rows = list(range(first, first + work.count))
            first += work.count
            if work.error is None and work.recorded:
                together.append(work)
                keep += rows
            elif work.error is None:
                work.served = [_served(batch, [work], rows)]
        if together:
            self._record(_served(batch, together, keep))

    async def retire(self) -> None:
        """Let what is being answered end, then give up what was loaded."""
        # A candidate falls back to the live version, which goes last.
        await _drain([self.batcher, self._candidate], None)
        self.set_trial(None)
        await asyncio.gather(*self._leaving)
        self.live.close()
        self.live.metrics.rest()
        if self.reader is not None:
            try:
                await self.reader.close()
            except AiosError as error:
                logger.warning("A feature reader did not close: %s", error)


async def _drain(batchers: Sequence[MicroBatcher | None], version: ServedVersion | None) -> None:
    """Let what waits for a version be answered, then close it."""
    until = time.monotonic() + DRAIN_SECONDS
    while any(b is not None and not b.idle for b in batchers) and time.monotonic() < until:
        await asyncio.sleep(DRAIN_LOOK_SECONDS)
    if version is not None:
        version.close()


def _served(batch: Batch, works: Sequence[Work], keep: list[int] | None) -> ServedRows:
    by = batch.by or batch.version
    matrix, texts, scores, sources = batch.matrix, batch.texts, batch.probabilities, batch.sources
    if keep is not None:
        matrix, scores = matrix[keep], scores[keep]
        texts = [[column[row] for row in keep] for column in texts]
        sources = [sources[row] for row in keep]
    return ServedRows(
        model=by.model,
        version=by.version,
        model_digest=by.digest,
        features=by.features,
        request_ids=[work.request_id for work in works for _ in range(work.count)],
        places=[place for work in works for place in work.places],
        row_ids=[name for work in works for name in work.ids],
        served_at=time.time(),
        moments=works[0].moments
        if len(works) == 1
        else np.concatenate([work.moments for work in works]),
        matrix=matrix,
        texts=tuple(texts),
        probabilities=scores,
        sources=sources,
        schema=by.answers,
    )
