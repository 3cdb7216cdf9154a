"""Who answers when the asked version cannot: the previous one, the simple model, the default."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.serving import Hop, Serving
from aios_platform.errors import ScoringError
from aios_platform.serving import metrics
from aios_platform.serving.batches import Batch
from aios_platform.serving.engine import Engine, Texts
from aios_platform.serving.version import ServedVersion

logger = logging.getLogger(__name__)

HOPS = frozenset({Hop.SIMPLE.value, Hop.DEFAULT.value, ""})
"""Sources of rows that no version answered."""


@dataclass
class Fallbacks:
    """Who answers when the asked version cannot.

    Attributes:
        previous: The newest earlier healthy champion; None: there is none.
        simple: The simple model and the request columns it takes; None: there is none.
    """

    previous: ServedVersion | None = None
    simple: tuple[Engine, tuple[str, ...]] | None = None

    def answer(self, batch: Batch, serving: Serving) -> None:
        """Let the simple model or the safe default answer.

        Args:
            batch: All rows are answered if no version answered, otherwise those that are diverted;
                none that are refused. Rows that nothing can answer get the source "".
            serving: Which hops are declared.
        """
        where = np.arange(batch.rows)
        if batch.sources:
            assert batch.diverted is not None
            where = np.flatnonzero(batch.diverted)
            if not batch.probabilities.flags.writeable:
                batch.probabilities = batch.probabilities.copy()
        else:
            batch.sources = [""] * batch.rows
            answers = batch.version.answers
            shape = (batch.rows,) if answers.flat else (batch.rows, len(answers.columns))
            batch.probabilities = np.full(shape, np.nan, dtype=np.float32)
        if batch.refused is not None:
            where = where[~batch.refused[where]]
        if not len(where):
            return
        hop, found = self._found(batch, where, serving)
        batch.probabilities[where] = found
        for row in where:
            batch.sources[row] = hop
        if hop:
            metrics.FALLBACKS.labels(batch.version.model, hop).inc(len(where))

    def _found(
        self, batch: Batch, where: NDArray[np.intp], serving: Serving
    ) -> tuple[str, NDArray[np.float32] | float]:
        """Which hop answers, and its answers."""
        if Hop.SIMPLE in serving.fallback and self.simple is not None:
            try:
                return Hop.SIMPLE.value, self._simple(*self.simple, batch, where)
            except ScoringError as error:
                logger.error("The simple model of %s failed: %s", batch.version.model, error)
        if Hop.DEFAULT in serving.fallback and serving.safe_default is not None:
            return Hop.DEFAULT.value, serving.safe_default
        return "", np.nan

    def _simple(
        self, engine: Engine, names: tuple[str, ...], batch: Batch, where: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        features = batch.version.features
        columns = [features.numerical.index(n) for n in names if n in features.numerical]
        words = [features.categorical.index(n) for n in names if n in features.categorical]
        texts: Texts = [[batch.texts[place][row] for row in where] for place in words]
        return engine.run(np.ascontiguousarray(batch.matrix[where][:, columns]), texts)
