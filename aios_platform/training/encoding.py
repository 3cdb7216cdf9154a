"""Statistics of the training rows, and raw frames as arrays.

What is fitted here (quantile knots, vocabularies) becomes constants of the exported graph, so that
the model takes raw features wherever it runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.columns import is_text
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.record import nearest
from aios_platform.errors import TrainingError
from aios_platform.training.tokens import TextOptions, Words, fit_words
from aios_platform.training.vectors import VectorScale, checked_vectors, fit_scale

UNKNOWN = 0
# Quantiles between which the distribution function is linear; denser in the tails, and short of
# the extremes, so that a single outlier moves nothing.
LEVELS = (0.002, 0.02, *(step / 14 for step in range(1, 14)), 0.98, 0.998)
# Beyond these, float32 arithmetic on differences and their inverses would overflow.
LARGEST, SMALLEST = 1e30, 1e-30
# Rarer values share the unknown bucket, which so learns what an unseen value is like.
MIN_COUNT = 20
COLUMNS_AT_ONCE = 8


class Columns(Protocol):
    """Rows that can be read column by column: a table, or rows that lie in files."""

    @property
    def column_names(self) -> list[str]:
        """Names of all columns."""

    def select(self, names: list[str], /) -> pa.Table:
        """Some columns of all rows."""


@dataclass(frozen=True)
class Encoding:
    """What the network knows of its inputs before it learns.

    Attributes:
        knots: Per numerical feature, its distinct quantiles in rising order, at least two.
        scores: Per numerical feature, the normal score of each knot.
        center: Shape (f,), float32, mean of the values kept within the knots.
        scale: Shape (f,), float32, their standard deviation, above 0.
        missing: Shape (f,), whether training rows lack the feature at times.
        vocabularies: Per categorical feature, its values; the code of the i-th is i + 1.
        vectors: Per vector feature, its scale.
        texts: Per text feature, the words that are known.
    """

    knots: tuple[NDArray[np.float32], ...]
    scores: tuple[NDArray[np.float32], ...]
    center: NDArray[np.float32]
    scale: NDArray[np.float32]
    missing: NDArray[np.bool_]
    vocabularies: tuple[tuple[str, ...], ...]
    vectors: tuple[VectorScale, ...] = ()
    texts: tuple[Words, ...] = ()

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes per categorical feature, the unknown bucket included."""
        return tuple(len(values) + 1 for values in self.vocabularies)


def numerical_matrix(frame: pa.Table, schema: FeatureSchema) -> NDArray[np.float32]:
    """The numerical features, shape (n, f), float32, missing as NaN.

    Raises:
        TrainingError: A column is missing or is not numerical.
    """
    matrix = np.empty((frame.num_rows, len(schema.numerical)), dtype=np.float32)
    for index, name in enumerate(schema.numerical):
        matrix[:, index] = _numbers(frame, name)
    return matrix


def categorical_codes(
    frame: pa.Table, schema: FeatureSchema, vocabularies: tuple[tuple[str, ...], ...]
) -> NDArray[np.int64]:
    """Codes of the categorical features, shape (n, c), int64; unseen and missing are 0.

    Raises:
        TrainingError: A column is missing or is not of strings.
    """
    codes = np.zeros((frame.num_rows, len(schema.categorical)), dtype=np.int64)
    for index, (name, values) in enumerate(zip(schema.categorical, vocabularies, strict=True)):
        found = pc.index_in(_strings(frame, name), value_set=pa.array(values, pa.string()))
        codes[:, index] = pc.fill_null(found, -1).to_numpy() + 1
    return codes


def vector_matrices(frame: pa.Table, schema: FeatureSchema) -> list[NDArray[np.float32]]:
    """Each vector feature, shape (n, length), float32; a row without one is NaN.

    Raises:
        TrainingError: A column is missing, is not of lists, or has another length.
    """
    return [_vectors(frame, name, schema) for name in schema.vectors]


def texts_of(frame: pa.Table, name: str) -> NDArray[np.object_]:
    """A text feature, shape (n,), strings; "" where there is none.

    Raises:
        TrainingError: The column is missing or is not of strings.
    """
    texts = _strings(frame, name).fill_null("")
    return np.array(texts.to_pylist(), dtype=object)


def raw_inputs(frame: pa.Table, schema: FeatureSchema, encoding: "Encoding") -> list[NDArray[Any]]:
    """What the whole model takes: numericals, codes, each vector, each text as numbers of words.

    Raises:
        TrainingError: A column is missing or has the wrong type.
    """
    texts = zip(schema.texts, encoding.texts, strict=True)
    return [
        numerical_matrix(frame, schema),
        categorical_codes(frame, schema, encoding.vocabularies),
        *vector_matrices(frame, schema),
        *(words.ids(texts_of(frame, name)) for name, words in texts),
    ]


def fit_encoding(
    rows: Columns, schema: FeatureSchema, texts: TextOptions | None = None
) -> Encoding:
    """Fit quantile knots, vocabularies, scales of vectors and words of texts.

    Args:
        rows: The training rows; nothing of validation may be among them. They are read a few
            columns at a time.
        schema: The model's inputs.
        texts: How many words of texts are known.

    Raises:
        TrainingError: A column is missing or has the wrong type.
    """
    knots, scores, moments, missing = [], [], [], []
    for name, part in _parts(rows, schema.numerical):
        column = _numbers(part, name)
        present = column[np.isfinite(column)].astype(np.float64)
        edges, normal = _knots(present)
        bounded = np.clip(present, edges[0], edges[-1]) if present.size else np.zeros(1)
        knots.append(edges)
        scores.append(normal)
        deviation = bounded.std()
        moments.append((bounded.mean(), deviation if deviation > SMALLEST else 1.0))
        missing.append(bool(np.isnan(column).any()))
    return Encoding(
        knots=tuple(knots),
        scores=tuple(scores),
        center=np.array([mean for mean, _ in moments], dtype=np.float32),
        scale=np.array([deviation for _, deviation in moments], dtype=np.float32),
        missing=np.array(missing, dtype=np.bool_),
        vocabularies=tuple(
            _vocabulary(_strings(part, name)) for name, part in _parts(rows, schema.categorical)
        ),
        vectors=tuple(
            fit_scale(_vectors(part, name, schema)) for name, part in _parts(rows, schema.vectors)
        ),
        texts=tuple(
            fit_words(texts_of(part, name), texts or TextOptions())
            for name, part in _parts(rows, schema.texts)
        ),
    )


def _parts(rows: Columns, names: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Each name with a table that has its column; several share one reading of the rows."""
    for start in range(0, len(names), COLUMNS_AT_ONCE):
        some = list(names[start : start + COLUMNS_AT_ONCE])
        for name in some:
            _require(name, rows.column_names)
        part = rows.select(some)
        for name in some:
            yield name, part


def _knots(present: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distinct quantiles, and the normal score of the middle of the levels each one stands for."""
    if not present.size:
        return np.array([0, 1], dtype=np.float32), np.zeros(2, dtype=np.float32)
    levels = np.array(LEVELS)
    quantiles = np.quantile(np.clip(present, -LARGEST, LARGEST), levels)
    # Values closer than the smallest step count as equal.
    steps = np.diff(quantiles, prepend=quantiles[0]) > SMALLEST
    quantiles = quantiles[np.maximum.accumulate(np.where(steps, np.arange(steps.size), 0))]
    edges, first, count = np.unique(
        quantiles.astype(np.float32), return_index=True, return_counts=True
    )
    if edges.size == 1:
        return np.append(edges, edges + abs(edges) + np.float32(1)), np.zeros(2, dtype=np.float32)
    normal = NormalDist()
    middle = (levels[first] + levels[first + count - 1]) / 2
    return edges, np.array([normal.inv_cdf(float(level)) for level in middle], dtype=np.float32)


def _vocabulary(column: pa.ChunkedArray) -> tuple[str, ...]:
    counted = [
        (-entry["counts"], entry["values"])
        for entry in pc.value_counts(column).to_pylist()
        if entry["values"] and entry["counts"] >= MIN_COUNT
    ]
    return tuple(value for _, value in sorted(counted))


def _vectors(frame: pa.Table, name: str, schema: FeatureSchema) -> NDArray[np.float32]:
    (length,) = (field.length or 0 for field in schema.fields if field.name == name)
    return checked_vectors(_column(frame, name), name, length)


def _strings(frame: pa.Table, name: str) -> pa.ChunkedArray:
    column = _column(frame, name)
    if not is_text(column.type):
        raise TrainingError(
            f"The feature '{name}' is of type {column.type}; expected string.",
            remedy="Declare the type that it has, or cast it in its feature view.",
        )
    return column.cast(pa.string())


def _numbers(frame: pa.Table, name: str) -> NDArray[np.float32]:
    column = _column(frame, name)
    try:
        values: NDArray[np.float32] = column.cast(pa.float32(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TrainingError(
            f"The feature '{name}' of type {column.type} is not numerical: {error}",
            remedy="Declare it as a string feature, or cast it in its feature view.",
        ) from error
    return values


def _column(frame: pa.Table, name: str) -> pa.ChunkedArray:
    _require(name, frame.column_names)
    return frame.column(name)


def _require(name: str, present: list[str]) -> None:
    if name not in present:
        raise TrainingError(
            f"The training frame lacks the column '{name}'. {nearest(name, present)}",
            remedy="Materialize the training set again.",
        )
