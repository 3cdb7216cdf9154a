"""A linear model of rows, whatever the task: the yardstick that a network has to justify itself by.

Numericals enter standardised and clipped to the range of the training rows, with an indicator where
training rows lack them at times; categoricals as one weight per value, with none for a value that
is rare or new; vectors as one weight per standardised element; texts as one weight per hashed word.
All weights have a standard normal prior.
"""

import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.columns import vector_matrix
from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.errors import ScoringError
from aios_platform.metrics.truth import truth_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scipy.sparse import csr_matrix

MIN_COUNT = 20
ITERATIONS = 100
WORDS = 4096
"""Columns that the words of a text are hashed to."""
LONGEST = 256
"""Words of a text that are read."""
# Beyond float32's comfortable range differences would overflow.
LARGEST = 1e30
# A column of numbers that are all alike has a deviation of rounding errors.
SMALLEST = 1e-12
_WORD = re.compile(r"\w+")

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class Number:
    """What is known of a numerical from the training rows."""

    name: str
    low: float
    high: float
    center: float
    scale: float


@dataclass(frozen=True)
class Design:
    """How rows become the columns that a linear model weighs.

    Attributes:
        numbers: The numericals; two columns each: standardised, and whether it is missing.
        vocabularies: The frequent values of each categorical; a column each.
        vectors: Mean and deviation of the elements of each vector; a column per element.
        texts: The texts; `WORDS` columns each.
    """

    numbers: tuple[Number, ...]
    vocabularies: dict[str, tuple[str, ...]]
    vectors: dict[str, tuple[Weights, Weights]]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, rows: pa.Table, fields: "Sequence[FeatureField]") -> "Design":
        """What the training rows say about these inputs."""
        kinds = {kind: [f for f in fields if f.kind is kind] for kind in FieldKind}
        return cls(
            tuple(_number(f.name, _values(rows, f.name)) for f in kinds[FieldKind.NUMERICAL]),
            {f.name: _vocabulary(rows[f.name]) for f in kinds[FieldKind.CATEGORICAL]},
            {
                f.name: _scale(vector_matrix(rows[f.name], f.length or 0))
                for f in kinds[FieldKind.VECTOR]
            },
            tuple(f.name for f in kinds[FieldKind.TEXT]),
        )

    def matrix(self, table: pa.Table) -> "csr_matrix":
        """The columns of some rows, shape (n, columns)."""
        from scipy import sparse

        blocks: list[Any] = []
        for number in self.numbers:
            values = _values(table, number.name)
            absent = np.isnan(values)
            clipped = np.clip(values, number.low, number.high)
            standard = np.where(absent, 0, (clipped - number.center) / number.scale)
            blocks.append(sparse.csr_matrix(np.column_stack([standard, absent])))
        for name, words in self.vocabularies.items():
            codes = pc.index_in(table[name].cast(pa.string()), pa.array(words, pa.string()))
            places = codes.to_numpy(zero_copy_only=False)
            known = np.flatnonzero(~np.isnan(places.astype(float)))
            blocks.append(_ones(known, places[known].astype(np.int64), (len(places), len(words))))
        for name, (center, scale) in self.vectors.items():
            matrix = (vector_matrix(table[name], center.size) - center) / scale
            blocks.append(sparse.csr_matrix(np.nan_to_num(matrix, posinf=0.0, neginf=0.0)))
        blocks += [_words(table[name]) for name in self.texts]
        return sparse.hstack(blocks, format="csr")


@dataclass(frozen=True)
class Linear:
    """A fitted linear model.

    Attributes:
        design: Its columns.
        weights: Shape (columns + 1, outputs); the last row holds the intercepts.
        task: What it answers.
    """

    design: Design
    weights: Weights
    task: str

    def predict(self, rows: pa.Table) -> NDArray[np.float64]:
        """Probabilities (n,), those of the classes (n, classes), or values (n,)."""
        from scipy.special import expit, softmax

        margins = self.design.matrix(rows) @ self.weights[:-1] + self.weights[-1]
        if self.task == "multiclass_classification":
            chances: NDArray[np.float64] = softmax(margins, axis=1)
            return chances
        only: NDArray[np.float64] = margins[:, 0]
        return expit(only) if self.task == "binary_classification" else only


def fit_linear(
    rows: pa.Table, fields: "Sequence[FeatureField]", label: str, answers: AnswerSchema
) -> Linear:
    """Logistic, softmax or ridge regression of labelled rows.

    Args:
        rows: Training rows, all of them with a label.
        fields: The inputs.
        label: Column of the label.
        answers: What a model of the task answers.

    Raises:
        ScoringError: There is no input, or the labels are all the same.
        DataError: A label is none of the task's.
    """
    truth = truth_of(rows[label], answers)
    if not fields or not truth.size or (truth == truth[0]).all():
        raise ScoringError(
            f"No linear model of {len(fields)} inputs and {truth.size:,} rows whose labels do "
            "not differ.",
            remedy="Train on windows in which outcomes differ.",
        )
    design = Design.of(rows, fields)
    matrix = design.matrix(rows)
    if answers.task == "binary_classification":
        weights = logistic(matrix, truth)[:, None]
    elif answers.task == "multiclass_classification":
        weights = _softmax(matrix, truth, len(answers.classes))
    else:
        weights = _ridge(matrix, truth)
    return Linear(design, weights, answers.task)


def logistic(design: "csr_matrix", labels: NDArray[np.bool_]) -> Weights:
    """Weights and, last, the intercept: L2-penalised logistic regression by L-BFGS.

    scikit-learn has the same solver, and takes seconds to import.

    Args:
        design: Shape (n, columns).
        labels: Shape (n,), of both classes.

    Returns:
        Shape (columns + 1,).
    """
    from scipy.special import expit, log_expit

    signs = np.where(labels, 1.0, -1.0)

    def loss(weights: Weights) -> tuple[float, Weights]:
        margins = signs * (design @ weights[:-1] + weights[-1])
        slopes = -signs * expit(-margins)
        penalised = np.append(weights[:-1], 0.0)
        value = penalised @ penalised / 2 - log_expit(margins).sum()
        return value, np.append(design.T @ slopes, slopes.sum()) + penalised

    return _minimum(loss, np.zeros(design.shape[1] + 1), len(labels))


def _softmax(design: "csr_matrix", codes: NDArray[Any], classes: int) -> Weights:
    from scipy.special import log_softmax

    shape = (design.shape[1] + 1, classes)
    truth = np.eye(classes)[codes]

    def loss(flat: Weights) -> tuple[float, Weights]:
        weights = flat.reshape(shape)
        chances = log_softmax(design @ weights[:-1] + weights[-1], axis=1)
        slopes = np.exp(chances) - truth
        penalised = np.vstack([weights[:-1], np.zeros((1, classes))])
        value = (penalised**2).sum() / 2 - (truth * chances).sum()
        gradient = np.vstack([design.T @ slopes, slopes.sum(axis=0)]) + penalised
        return value, gradient.ravel()

    return _minimum(loss, np.zeros(shape).ravel(), len(codes)).reshape(shape)


def _minimum(
    loss: "Callable[[Weights], tuple[float, Weights]]", start: Weights, rows: int
) -> Weights:
    from scipy.optimize import minimize

    def per_row(weights: Weights) -> tuple[float, Weights]:
        value, gradient = loss(weights)
        return value / rows, gradient / rows

    found = minimize(per_row, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    weights: Weights = found.x
    return weights


def _ridge(design: "csr_matrix", values: NDArray[np.float64]) -> Weights:
    """Least squares with the prior on the scale of the label's deviation."""
    from scipy.sparse.linalg import lsmr

    center, scale = values.mean(), values.std() or 1.0
    means = np.asarray(design.mean(axis=0)).ravel()
    # The intercept is not penalised: it follows from the means.
    found = lsmr(_centered(design, means), (values - center) / scale, damp=1.0)[0]
    weights: Weights = np.append(found * scale, center - scale * (means @ found))
    return weights[:, None]


def _centered(design: "csr_matrix", means: Weights) -> Any:
    from scipy.sparse.linalg import LinearOperator

    return LinearOperator(
        design.shape,
        matvec=lambda weights: design @ weights.ravel() - means @ weights.ravel(),
        rmatvec=lambda rows: design.T @ rows.ravel() - means * rows.sum(),
        dtype=np.float64,
    )


def _values(table: pa.Table, name: str) -> NDArray[np.float64]:
    values = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    bounded: NDArray[np.float64] = np.clip(values, -LARGEST, LARGEST)
    return bounded


def _number(name: str, values: NDArray[np.float64]) -> Number:
    present = values[~np.isnan(values)]
    if not present.size:
        return Number(name, 0.0, 0.0, 0.0, 1.0)
    return Number(
        name,
        float(present.min()),
        float(present.max()),
        float(present.mean()),
        float(present.std()) or 1.0,
    )


def _vocabulary(column: pa.ChunkedArray) -> tuple[str, ...]:
    counted = pc.value_counts(column.cast(pa.string()).drop_null()).to_pylist()
    return tuple(sorted(e["values"] for e in counted if e["values"] and e["counts"] >= MIN_COUNT))


def _scale(matrix: NDArray[np.float32]) -> tuple[Weights, Weights]:
    finite = np.ma.masked_invalid(matrix.astype(np.float64))
    center = np.ma.filled(finite.mean(axis=0), 0.0)
    scale = np.ma.filled(finite.std(axis=0), 1.0)
    # An element that never differs, the corner of an image, has no weight to learn.
    return center, np.where(scale > SMALLEST, scale, np.inf)


def _words(column: pa.ChunkedArray) -> "csr_matrix":
    rows: list[int] = []
    places: list[int] = []
    texts = column.to_pylist()
    for row, text in enumerate(texts):
        words = {w.lower() for w in _WORD.findall(text or "")[:LONGEST]}
        found = {zlib.crc32(word.encode()) % WORDS for word in words}
        rows += [row] * len(found)
        places += found
    return _ones(np.array(rows, np.int64), np.array(places, np.int64), (len(texts), WORDS))


def _ones(rows: NDArray[Any], places: NDArray[Any], shape: tuple[int, int]) -> "csr_matrix":
    from scipy import sparse

    return sparse.csr_matrix((np.ones(rows.size), (rows, places)), shape=shape)
