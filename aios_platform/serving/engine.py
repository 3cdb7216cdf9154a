"""One ONNX model on the hot path: a matrix in, answers out."""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureSchema, FieldKind
from aios_platform.errors import ScoringError, VersionUnusable
from aios_platform.inference.packed import NUMERICAL, packed
from aios_platform.inference.session import answers_of, open_session, possible

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
        answers: What it must answer; unset, a probability.
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
        answers: AnswerSchema | None = None,
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
        self.answers = answers or AnswerSchema()
        self._binary = self.answers.task == "binary_classification"
        self._output = [self.answers.output]
        self._numerical = len(features.numerical)
        self._categorical = features.categorical
        self._texts = features.texts
        self._vectors = vector_places(features)
        self._width = max([self._numerical, *(end for _, _, end in self._vectors)])
        try:
            self._session = open_session(packed(onnx, features), threads, accelerated=True)
        except ScoringError as error:
            raise VersionUnusable(error.what, remedy=error.remedy) from error
        told = answers_of(self._session)
        if told != self.answers:
            raise VersionUnusable(
                f"The model answers {list(told.columns)}; the declaration says "
                f"{list(self.answers.columns)}.",
                remedy="Train and promote a version of what is declared.",
            )
        self.seconds = 0.0
        """Processor seconds that scoring took so far."""
        self.batch_seconds = self._warm(probe)
        """Wall time of a full batch when it was warmed, the least of several."""

    def run(self, matrix: NDArray[np.float32], texts: Texts) -> NDArray[np.float32]:
        """The model's answers.

        Args:
            matrix: Shape (rows, numericals + elements of vectors), float32, in the schema's order;
                NaN is missing.
            texts: A list of `rows` strings per categorical, then per text, in order; "" is
                missing.

        Returns:
            Shape (rows,), or (rows, answer columns) where there are several, float32.

        Raises:
            ScoringError: ONNX Runtime failed, or an answer is none of the task.
        """
        start = time.thread_time()
        try:
            rows = len(matrix) if self._width else len(texts[0])
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
        if self._vectors:
            if self._numerical:
                feeds[NUMERICAL] = np.ascontiguousarray(matrix[:, : self._numerical])
            for name, start, end in self._vectors:
                feeds[name] = np.ascontiguousarray(matrix[:, start:end])
        for name, column in zip(self._categorical, texts, strict=not self._texts):
            feeds[name] = np.array(column, dtype=object).reshape(-1, 1)
        if self._texts:
            rest = texts[len(self._categorical) :]
            for name, column in zip(self._texts, rest, strict=True):
                feeds[name] = np.array(column, dtype=object)
        try:
            (found,) = self._session.run(self._output, feeds)
        except Exception as error:
            raise ScoringError(
                f"ONNX Runtime failed on a batch of {len(matrix)} rows: {_where(error)}",
                remedy="Roll back, or register the model again if its file is suspect.",
            ) from error
        if not self._binary:
            return self._checked(found)
        # Written so that NaN fails, too; the arrays' own methods take twice as long.
        if not (len(found) and np.minimum.reduce(found) >= 0 and np.maximum.reduce(found) <= 1):
            raise ScoringError(
                "The model gave an answer that is not a probability.",
                remedy="Roll back to an earlier version.",
            )
        scores: NDArray[np.float32] = found
        return scores

    def _checked(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answers of several columns, or of a regression's one."""
        if self.answers.flat:
            found = found[:, 0]
        if not (len(found) and possible(found, self.answers).all()):
            kind = self.answers.task.replace("_", " ")
            raise ScoringError(
                f"The model gave an answer that is none of {kind}.",
                remedy="Roll back to an earlier version.",
            )
        return found

    def figures(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """One number per answer, of which means are taken.

        Args:
            scores: Answers of this engine.

        Returns:
            Shape (rows,): the probability, that of the likeliest class, or the value.
        """
        if scores.ndim == 1:
            return scores
        found: NDArray[np.float32] = (
            scores.max(axis=1) if self.answers.classes else np.ascontiguousarray(scores[:, 0])
        )
        return found

    def _warm(self, rows: int) -> float:
        """Score empty rows, singly and together, until the first calls' costs are behind."""
        least = float("inf")
        for _ in range(WARM_UP_ROUNDS):
            for count in (1, rows):
                matrix = np.full((count, self._width), np.nan, dtype=np.float32)
                texts = [[""] * count for _ in (*self._categorical, *self._texts)]
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


def vector_places(features: FeatureSchema) -> list[tuple[str, int, int]]:
    """Name, first and last column (exclusive) of each vector in a matrix, after the numericals."""
    found, start = [], len(features.numerical)
    for field in features.fields:
        if field.kind is FieldKind.VECTOR:
            end = start + (field.length or 0)
            found.append((field.name, start, end))
            start = end
    return found


def _where(error: Exception) -> str:
    """What failed, without the operator's own message: it may quote a row's values."""
    return f"{type(error).__name__}: {str(error).partition('Status Message')[0][:500]}"
