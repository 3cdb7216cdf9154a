"""One ONNX model on the hot path: a matrix in, probabilities out."""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.errors import ScoringError, VersionUnusable
from aios_platform.inference.packed import NUMERICAL, packed
from aios_platform.inference.session import OUTPUT, open_session

# Small enough for the intermediate values of a batch to stay in the processor's cache.
CHUNK_ROWS = 1024
WARM_UP_ROUNDS = 5
# How far two batch sizes may differ on one row: matrix products add in another order.
TOLERANCE = 1e-6

Texts = Sequence[list[str]]


class Engine:
    """A warmed model.

    Args:
        onnx: Bytes of the single-file model.
        digest: SHA-256 (hex) that they must have.
        features: The inputs of the model, in order.
        threads: Threads per operator.
        probe: Rows of the largest batch, which is what it is warmed with.

    Raises:
        VersionUnusable: The bytes are others, are no model, or do not score.
    """

    def __init__(
        self,
        onnx: bytes,
        *,
        digest: str,
        features: FeatureSchema,
        threads: int = 1,
        probe: int = 64,
    ) -> None:
        found = hashlib.sha256(onnx).hexdigest()
        if found != digest:
            raise VersionUnusable(
                f"The model's bytes have the digest {found[:12]}, not {digest[:12]}.",
                remedy="Restore the artifact root from a backup; the version before keeps serving.",
            )
        self.digest = digest
        self.features = features
        self._numerical = len(features.numerical)
        self._categorical = features.categorical
        try:
            self._session = open_session(packed(onnx, features), threads, accelerated=True)
        except ScoringError as error:
            raise VersionUnusable(error.what, remedy=error.remedy) from error
        self.seconds = 0.0
        """Processor seconds that scoring took so far."""
        self.batch_seconds = self._warm(probe)
        """Wall time of a full batch when it was warmed, the least of several."""

    def run(self, matrix: NDArray[np.float32], texts: Texts) -> NDArray[np.float32]:
        """Probabilities of the positive class.

        Args:
            matrix: Shape (rows, numericals), float32, in the schema's order; NaN is missing.
            texts: A list of `rows` strings per categorical, in order; "" is missing.

        Returns:
            Shape (rows,), float32, each within [0, 1].

        Raises:
            ScoringError: ONNX Runtime failed, or an answer is not a probability.
        """
        start = time.thread_time()
        try:
            rows = len(matrix) if self._numerical else len(texts[0])
            if rows <= CHUNK_ROWS:
                return self._run(matrix, texts)
            return np.concatenate(
                [
                    self._run(
                        matrix[first : first + CHUNK_ROWS],
                        [column[first : first + CHUNK_ROWS] for column in texts],
                    )
                    for first in range(0, rows, CHUNK_ROWS)
                ]
            )
        finally:
            self.seconds += time.thread_time() - start

    def _run(self, matrix: NDArray[np.float32], texts: Texts) -> NDArray[np.float32]:
        feeds: dict[str, Any] = {NUMERICAL: matrix} if self._numerical else {}
        for name, column in zip(self._categorical, texts, strict=True):
            feeds[name] = np.array(column, dtype=object).reshape(-1, 1)
        try:
            (found,) = self._session.run([OUTPUT], feeds)
        except Exception as error:
            raise ScoringError(
                f"ONNX Runtime failed on a batch of {len(matrix)} rows: {_where(error)}",
                remedy="Roll back, or register the model again if its file is suspect.",
            ) from error
        # Written so that NaN fails, too; the arrays' own methods take twice as long.
        if not (len(found) and np.minimum.reduce(found) >= 0 and np.maximum.reduce(found) <= 1):
            raise ScoringError(
                "The model gave an answer that is not a probability.",
                remedy="Roll back to an earlier version.",
            )
        scores: NDArray[np.float32] = found
        return scores

    def _warm(self, rows: int) -> float:
        """Score empty rows, singly and together, until the first calls' costs are behind."""
        least = float("inf")
        for _ in range(WARM_UP_ROUNDS):
            for count in (1, rows):
                matrix = np.full((count, self._numerical), np.nan, dtype=np.float32)
                texts = [[""] * count for _ in self._categorical]
                start = time.perf_counter()
                try:
                    self.run(matrix, texts)
                except ScoringError as error:
                    raise VersionUnusable(
                        f"The model {self.digest[:12]} does not score rows without values: "
                        f"{error.what}",
                        remedy=error.remedy,
                    ) from error
            least = min(least, time.perf_counter() - start)
        self.seconds = 0.0
        return least


def _where(error: Exception) -> str:
    """What failed, without the operator's own message: it may quote a row's values."""
    return f"{type(error).__name__}: {str(error).partition('Status Message')[0][:500]}"
