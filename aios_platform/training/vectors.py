"""Vector features: lists of numbers of one length, as arrays, and their scale."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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


def vector_matrix(column: pa.ChunkedArray, name: str, length: int) -> NDArray[np.float32]:
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
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (lists or pa.types.is_fixed_size_list(kind)):
        raise TrainingError(
            f"The vector feature '{name}' is of type {kind}; expected lists of numbers.",
            remedy="Declare its column as a vector with its length in the source.",
        )
    matrix = np.full((len(column), length), np.nan, dtype=np.float32)
    done = 0
    for chunk in column.chunks:
        present = np.asarray(chunk.is_valid())
        flat = chunk.drop_null().flatten().cast(pa.float32(), safe=False)
        values = flat.to_numpy(zero_copy_only=False)
        wrong = [n for n in set(_lengths(chunk.drop_null())) if n != length]
        if wrong:
            raise TrainingError(
                f"The vector feature '{name}' has {wrong[0]} elements in some rows; it is "
                f"declared with {length}.",
                remedy="Correct the length of its column in the source.",
            )
        matrix[done : done + len(chunk)][present] = values.reshape(-1, length)
        done += len(chunk)
    return matrix


def _lengths(chunk: pa.Array) -> list[int]:
    import pyarrow.compute as pc

    found: list[int] = pc.unique(pc.list_value_length(chunk)).to_pylist()
    return found


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
