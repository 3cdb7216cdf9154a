"""What Arrow columns hold, whoever laid them out, and vectors as a matrix."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists, of one length or any."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds strings, by themselves or through a dictionary."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def other_lengths(column: pa.Array | pa.ChunkedArray, length: int) -> list[int]:
    """The lengths of lists that are not the expected one, each once, rising."""
    lengths = pc.unique(pc.list_value_length(column.drop_null())).to_pylist()
    return sorted(set(lengths) - {length})


def vector_matrix(column: pa.Array | pa.ChunkedArray, length: int) -> NDArray[np.float32]:
    """Lists of numbers as a matrix; a row without one is NaN.

    Args:
        column: Lists of `length` numbers each; see `other_lengths`.
        length: Elements of each.

    Returns:
        Shape (n, length), float32.
    """
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = whole.drop_null().flatten().cast(pa.float32(), safe=False)
    matrix = np.full((len(whole), length), np.nan, dtype=np.float32)
    present = whole.is_valid().to_numpy(zero_copy_only=False)
    matrix[present] = flat.to_numpy(zero_copy_only=False).reshape(-1, length)
    return matrix
