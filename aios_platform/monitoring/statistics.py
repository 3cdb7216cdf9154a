"""Vectors and texts as a few numbers each, in which drift can be seen.

No single pixel or word is looked at: an image that is darker, or a mail that is longer, differs in
its statistics.

======================= ======================================================================
statistic               of
======================= ======================================================================
`<vector>.mean`         the elements
`<vector>.deviation`    the elements: their standard deviation
`<vector>.zeros`        the share of elements that are 0
`<text>.characters`     how many there are
`<text>.words`          how many runs of other characters than white space there are
`<text>.letters`        the share of characters that are letters
`<text>.digits`         the share of characters that are digits
======================= ======================================================================
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.columns import is_text
from aios_platform.contracts.datasets import FeatureField, FieldKind

VECTOR = ("mean", "deviation", "zeros")
TEXT = ("characters", "words", "letters", "digits")
OF = {FieldKind.VECTOR: VECTOR, FieldKind.TEXT: TEXT}


def measured_fields(fields: Iterable[FeatureField]) -> list[FeatureField]:
    """The numbers and categories as they are, and the statistics of the others in their place."""
    found = []
    for field in fields:
        for name in OF.get(field.kind, ()):
            found.append(
                FeatureField(
                    name=f"{field.name}.{name}", kind=FieldKind.NUMERICAL, origin=field.origin
                )
            )
        if field.kind not in OF:
            found.append(field)
    return found


def source_of(name: str, present: Iterable[str]) -> str:
    """The column that a measured one is made of: itself, or the vector or text."""
    source, _, statistic = name.rpartition(".")
    return source if name not in present and statistic in (*VECTOR, *TEXT) else name


def measured_column(frame: pa.Table, name: str) -> pa.ChunkedArray:
    """A column of the frame, or a statistic of one.

    Args:
        frame: Has the column.
        name: A name as `measured_fields` gives it.

    Raises:
        KeyError: The frame has neither.
    """
    if name in frame.column_names:
        return frame[name]
    source, _, statistic = name.rpartition(".")
    column = frame[source]
    if is_text(column.type):
        return _of_text(column, statistic)
    return pa.chunked_array([pa.array(_of_vectors(column, statistic), from_pandas=True)])


def measured(frame: pa.Table, fields: Iterable[FeatureField]) -> pa.Table:
    """A frame with statistics in place of its vectors and texts."""
    return pa.table({f.name: measured_column(frame, f.name) for f in measured_fields(fields)})


def measured_importance(weights: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Weights of measured columns: those of one feature share its weight."""
    sources = {name: source_of(name, weights) for name in names}
    counts = Counter(sources.values())
    return {n: weights[s] / counts[s] for n, s in sources.items() if s in weights}


def _of_vectors(column: pa.ChunkedArray, statistic: str) -> NDArray[np.float64]:
    """One number per row, NaN where there is no vector."""
    whole = column.combine_chunks()
    present = whole.drop_null()
    found = np.full(len(whole), np.nan)
    if not len(present):
        return found
    flat = present.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
    matrix = flat.reshape(len(present), -1)
    values = {
        "mean": lambda: matrix.mean(axis=1),
        "deviation": lambda: matrix.std(axis=1),
        "zeros": lambda: (matrix == 0).mean(axis=1),
    }[statistic]()
    found[~whole.is_null().to_numpy(zero_copy_only=False)] = values
    return found


def _of_text(column: pa.ChunkedArray, statistic: str) -> pa.ChunkedArray:
    characters = pc.utf8_length(column)
    if statistic == "characters":
        return characters
    if statistic == "words":
        return pc.count_substring_regex(column, r"\S+")
    pattern = r"\pL" if statistic == "letters" else r"\pN"
    count = pc.count_substring_regex(column, pattern).cast(pa.float64())
    return pc.divide(count, pc.max_element_wise(characters, 1).cast(pa.float64()))
