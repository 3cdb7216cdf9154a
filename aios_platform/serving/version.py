"""A model version in memory: its tiers, its cache, its breaker."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.packages import Conformal, ServingPackage
from aios_platform.contracts.serving import Serving, TierModel
from aios_platform.errors import ScoringError, StoreError, VersionUnusable
from aios_platform.inference.packages import read_package
from aios_platform.serving.answer_cache import AnswerCache
from aios_platform.serving.breaker import CircuitBreaker
from aios_platform.serving.engine import Engine, Texts
from aios_platform.serving.metrics import VersionMetrics

# What takes less is scored on the event loop: handing it to a thread costs as much.
INLINE_SECONDS = 0.001


class Scores(NamedTuple):
    """What a version made of a batch.

    Attributes:
        probabilities: Shape (rows,), or (rows, answer columns) where there are several, float32.
        tiers: Place of the tier that answered each row, int8.
        cached: Rows that were answered from the cache; None: there is no cache.
    """

    probabilities: NDArray[np.float32]
    tiers: NDArray[np.int8]
    cached: NDArray[np.bool_] | None


class ServedVersion:
    """One version, loaded and warmed.

    Args:
        model: Name of the model.
        version: Registered version.
        digest: SHA-256 (hex) of its ONNX bytes.
        service_digest: Feature service that it was trained on.
        features: Its inputs.
        engines: One per declared tier; None: the tier was not built for this version.
        serving: How the model answers.
        conformal: Its prediction sets; None: not known.
    """

    def __init__(
        self,
        *,
        model: str,
        version: str,
        digest: str,
        service_digest: str,
        features: FeatureSchema,
        engines: Sequence[Engine | None],
        serving: Serving,
        conformal: Conformal | None,
    ) -> None:
        self.model, self.version, self.digest = model, version, digest
        self.service_digest = service_digest
        self.features = features
        self.conformal = conformal
        self.engines = tuple(engines)
        self._tiers = serving.tiers
        self.every_tier = tuple(place for place, e in enumerate(engines) if e is not None)
        if not self.every_tier:
            raise VersionUnusable(
                f"Version {version} of {model} has none of the declared tiers.",
                remedy=f"Build its package: aios package {model} --version {version}",
            )
        first = self.engines[self.every_tier[0]]
        assert first is not None
        self.answers = first.answers
        self.figures = first.figures
        self.breaker = CircuitBreaker(serving.breaker.failures, serving.breaker.open_seconds)
        self.cache = (
            AnswerCache(serving.cache.entries, serving.cache.ttl_seconds)
            if serving.cache.entries
            else None
        )
        self.metrics = VersionMetrics(model, version)
        seconds = [e.batch_seconds for e in engines if e is not None]
        self.batch_seconds = min(seconds)
        """Time of a full batch when it was warmed, in the fastest tier."""
        # The tiers may all be asked for one batch.
        self.inline = sum(seconds) < INLINE_SECONDS
        self._quick_rows = int(serving.batching.max_rows * INLINE_SECONDS / sum(seconds))
        self.executor = _executor(model, version)

    def is_quick(self, rows: int) -> bool:
        """Whether so many rows are scored on the event loop: by the time that a full batch took."""
        return self.inline and rows <= self._quick_rows

    def may_answer(self, tiers: tuple[int, ...] | None) -> bool:
        """Whether it has one of these tiers; None: any."""
        return tiers is None or not set(tiers).isdisjoint(self.every_tier)

    @property
    def seconds(self) -> float:
        """Processor seconds that scoring took so far."""
        return sum(engine.seconds for engine in self.engines if engine is not None)

    def abandon(self) -> None:
        """Leave a scoring that hangs to itself; further ones get a thread of their own."""
        self.executor.shutdown(wait=False)
        self.executor = _executor(self.model, self.version)

    def close(self) -> None:
        """Let its thread end."""
        self.executor.shutdown(wait=False)

    def score(
        self,
        matrix: NDArray[np.float32],
        texts: Texts,
        tiers: tuple[int, ...] | None = None,
    ) -> Scores:
        """Score a batch: from the cache, then tier by tier while the answer is unsure.

        Args:
            matrix: Shape (rows, numericals + elements of vectors), float32.
            texts: Per categorical, then per text, a list of `rows` strings.
            tiers: Places of the tiers that may answer; unset, all there are.

        Raises:
            ScoringError: A tier failed, or the version has none of them.
        """
        chosen = self.every_tier
        if tiers is not None:
            chosen = tuple(place for place in self.every_tier if place in tiers)
            if not chosen:
                raise ScoringError(
                    f"Version {self.version} of {self.model} has no tier that may answer.",
                    remedy=f"Build its package: aios package {self.model} --version {self.version}",
                )
        if self.cache is None:
            probabilities, used = self._through(matrix, texts, chosen)
            return Scores(probabilities, used, None)
        return self._with_cache(self.cache, matrix, texts, chosen)

    def _through(
        self, matrix: NDArray[np.float32], texts: Texts, tiers: tuple[int, ...]
    ) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        first = tiers[0]
        probabilities = self._run(first, matrix, texts)
        used = np.full(len(probabilities), first, dtype=np.int8)
        for place, following in pairwise(tiers):
            band = self._tiers[place].escalate
            if band is None:
                break
            unsure = np.flatnonzero(
                (used == place) & (probabilities >= band.low) & (probabilities <= band.high)
            )
            if not len(unsure):
                break
            if probabilities.base is not None or not probabilities.flags.writeable:
                probabilities = probabilities.copy()
            probabilities[unsure] = self._run(
                following,
                matrix[unsure],
                [[column[row] for row in unsure] for column in texts],
            )
            used[unsure] = following
        return probabilities, used

    def _run(self, place: int, matrix: NDArray[np.float32], texts: Texts) -> NDArray[np.float32]:
        engine = self.engines[place]
        assert engine is not None
        return engine.run(matrix, texts)

    def _with_cache(
        self,
        cache: AnswerCache,
        matrix: NDArray[np.float32],
        texts: Texts,
        tiers: tuple[int, ...],
    ) -> Scores:
        now = time.monotonic()
        keys = AnswerCache.keys(matrix, texts, tiers)
        rows = len(keys)
        flat, width = self.answers.flat, len(self.answers.columns)
        probabilities = np.empty(rows if flat else (rows, width), dtype=np.float32)
        used = np.empty(rows, dtype=np.int8)
        cached = np.zeros(rows, dtype=bool)
        new: dict[object, list[int]] = {}
        for place, key in enumerate(keys):
            found = cache.get(key, now)
            if found is not None:
                probabilities[place], used[place] = found
                cached[place] = True
            else:
                new.setdefault(key, []).append(place)
        if new:
            firsts = [places[0] for places in new.values()]
            scored, by = self._through(
                matrix[firsts], [[column[row] for row in firsts] for column in texts], tiers
            )
            for places, probability, tier in zip(new.values(), scored, by, strict=True):
                probabilities[places] = probability
                used[places] = tier
                kept = float(probability) if flat else probability.copy()
                cache.put(keys[places[0]], kept, int(tier), now)
        return Scores(probabilities, used, cached)


def load_version(
    store: ArtifactStore,
    serving: Serving,
    *,
    model: str,
    version: str,
    digest: str,
    features: FeatureSchema,
    service_digest: str,
    answers: AnswerSchema | None = None,
) -> tuple[ServedVersion, ServingPackage | None]:
    """Load a version's bytes by their digests, and warm it.

    Args:
        store: Where the bytes are.
        serving: How the model answers.
        model: Name of the model.
        version: Registered version.
        digest: SHA-256 (hex) of its ONNX bytes.
        features: Its inputs, as its training set has them.
        service_digest: Feature service that it was trained on.
        answers: What it must answer; unset, a probability.

    Raises:
        VersionUnusable: The bytes are gone, damaged, or do not score.
    """
    try:
        package = read_package(store, model, digest)
    except StoreError as error:
        raise VersionUnusable(error.what, remedy=error.remedy) from error
    figures = {TierModel.FULL: digest}
    if package is not None:
        figures |= {tier.model: tier.digest for tier in package.tiers}
    engines: dict[TierModel, Engine] = {}
    for tier in serving.tiers:
        if tier.model in figures and tier.model not in engines:
            engines[tier.model] = _engine(store, figures[tier.model], features, serving, answers)
    served = ServedVersion(
        model=model,
        version=version,
        digest=digest,
        service_digest=service_digest,
        features=features,
        engines=[engines.get(tier.model) for tier in serving.tiers],
        serving=serving,
        conformal=package.conformal if package else None,
    )
    return served, package


def load_simple(
    store: ArtifactStore, package: ServingPackage, serving: Serving
) -> tuple[Engine, tuple[str, ...]] | None:
    """The version's simple model and the request columns that it takes; None: it has none.

    Raises:
        VersionUnusable: Its bytes are gone, damaged, or do not score.
    """
    if package.simple is None:
        return None
    wanted = set(package.simple.inputs)
    features = FeatureSchema(fields=tuple(f for f in package.features.fields if f.name in wanted))
    return _engine(store, package.simple.digest, features, serving), features.names


def _engine(
    store: ArtifactStore,
    digest: str,
    features: FeatureSchema,
    serving: Serving,
    answers: AnswerSchema | None = None,
) -> Engine:
    try:
        onnx = store.get(digest, ".onnx")
    except StoreError as error:
        raise VersionUnusable(error.what, remedy=error.remedy) from error
    return Engine(
        onnx,
        digest=digest,
        features=features,
        answers=answers,
        threads=serving.batching.threads,
        probe=serving.batching.max_rows,
    )


def _executor(model: str, version: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix=f"{model}-{version}")
