"""Vector features: lists of numbers of one length, as arrays, and their scale."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aios_platform.columns import is_list, other_lengths, vector_matrix
from aios_platform.errors import TrainingError

SMALLEST = 1e-30


@dataclass(frozen=True)
class VectorScale:
    """Mean and standard deviation of all elements of a vector over the training rows.

    One for all elements, so that the pixels of an image keep their relation to each other.
    """

    length: int
    center: float
    scale: float


def checked_vectors(column: pa.ChunkedArray, name: str, length: int) -> NDArray[np.float32]:
    """Vectors as a matrix; a row without one is NaN.

    Args:
        column: Lists of numbers.
        name: The feature, for errors.
        length: Elements of each.

    Returns:
        Shape (n, length), float32.

    Raises:
        TrainingError: The column is not of lists of numbers, or one has another length.
    """
    if not is_list(column.type):
        raise TrainingError(
            f"The vector feature '{name}' is of type {column.type}; expected lists of numbers.",
            remedy="Declare its column as a vector with its length in the source.",
        )
    wrong = other_lengths(column, length)
    if wrong:
        raise TrainingError(
            f"The vector feature '{name}' has {wrong[0]} elements in some rows; it is declared "
            f"with {length}.",
            remedy="Correct the length of its column in the source.",
        )
    return vector_matrix(column, length)


def fit_scale(matrix: NDArray[np.float32]) -> VectorScale:
    """Center and scale of the finite elements.

    Args:
        matrix: Shape (n, length).
    """
    present = matrix[np.isfinite(matrix)].astype(np.float64)
    deviation = float(present.std()) if present.size else 0.0
    return VectorScale(
        length=matrix.shape[1],
        center=float(present.mean()) if present.size else 0.0,
        scale=deviation if deviation > SMALLEST else 1.0,
    )
