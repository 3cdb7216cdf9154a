"""The rows of several requests as one input of the model, and what becomes of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureSchema, FieldKind
from aios_platform.contracts.serving import OnlinePolicy, Unavailable
from aios_platform.serving import metrics
from aios_platform.serving.contract import InputContract, Row
from aios_platform.serving.engine import vector_places
from aios_platform.serving.features import FeatureBlock
from aios_platform.serving.version import ServedVersion
from aios_platform.serving.work import Work


@dataclass
class Batch:
    """The rows of several requests, side by side, and what became of them.

    Attributes:
        works: The requests, in the order of their rows.
        version: The version that is asked.
        matrix: Shape (rows, numericals + elements of vectors), float32, in the schema's order; NaN
            is missing.
        texts: A list of `rows` strings per categorical, then per text, in order; "" is missing.
        deadline: When the last of the requests gives up, monotonic seconds.
        block: What was read for its first rows; None: nothing was.
        refused: Rows that are not to be answered, by the declaration's policy for their features.
        diverted: Rows that a fallback is to answer, by the same.
        probabilities: Shape (rows,), or (rows, answer columns), float32.
        sources: What answered each row; empty: no version has; "": nothing could.
        by: The version that answered; None: none did.
        seconds: Time that scoring took.
        stages: What was done when: name, begin, end, monotonic seconds.
        late: Whether a version did not answer in time.
    """

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
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    late: bool = False

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.matrix)


class BatchBuilder:
    """Puts requests and stored features together.

    Args:
        contract: The newest contract, in which rows are.
        features: The model's inputs: what requests bring, then what is stored.
        policy: What becomes of rows whose features are not there.
    """

    def __init__(
        self, contract: InputContract, features: FeatureSchema, policy: OnlinePolicy
    ) -> None:
        self._numerical = contract.numerical
        self._categorical = range(contract.numerical, contract.numerical + contract.categorical)
        first = contract.numerical + contract.categorical
        self._texts = range(first, first + contract.texts)
        first += contract.texts
        self._vectors = [
            (first + place, end - start)
            for place, (_, start, end) in enumerate(vector_places(features))
        ]
        self._words = len(features.categorical) + len(features.texts)
        self._policy = policy

    def build(
        self, works: Sequence[Work], version: ServedVersion, block: FeatureBlock | None
    ) -> Batch:
        """The model's inputs.

        Args:
            works: Requests; those that came as whole frames go after those whose features were
                read.
            version: The version that is to be asked.
            block: What was read for the rows of the requests that did not.
        """
        # One caller's haste must not cost the others of the batch their answers.
        deadline = max(work.deadline for work in works)
        plain = [work for work in works if work.frame is None]
        if len(plain) == len(works):
            matrix, texts = self._inputs(works, block)
        else:
            frames = [work for work in works if work.frame is not None]
            works = [*plain, *frames]
            parts = [self._inputs(plain, block)] if plain else []
            parts += [work.frame for work in frames if work.frame is not None]
            matrix = np.concatenate([part[0] for part in parts])
            texts = [
                [word for part in parts for word in part[1][place]] for place in range(self._words)
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
        if self._texts:
            texts += [[row[place] or "" for row in rows] for place in self._texts]
        if self._vectors:
            matrix = np.concatenate([matrix, *self._wide(rows)], axis=1)
        return matrix, texts

    def _wide(self, rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        """Vectors of rows, shape (rows, length) each, NaN where there is none."""
        return [
            np.array(
                [[np.nan] * length if row[place] is None else row[place] for row in rows],
                dtype=np.float32,
            )
            for place, length in self._vectors
        ]

    def _sort_out(self, batch: Batch, block: FeatureBlock) -> None:
        """Which rows are refused or diverted, as the declaration says of their features."""
        policy = self._policy
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


def unread(features: FeatureSchema, views: int, rows: int) -> FeatureBlock:
    """What is known of stored features that could not be read: nothing.

    Args:
        features: The model's inputs.
        views: How many views its stored features come from.
        rows: How many rows there are.
    """
    stored = features.joined
    numbers = sum(feature.kind is FieldKind.NUMERICAL for feature in stored)
    return FeatureBlock(
        matrix=np.full((rows, numbers), np.nan, dtype=np.float32),
        texts=tuple([""] * rows for _ in range(len(stored) - numbers)),
        event=np.full((rows, views), np.nan),
        missing=np.ones(rows, dtype=bool),
        stale=np.zeros(rows, dtype=bool),
        unreachable=np.ones(rows, dtype=bool),
    )
