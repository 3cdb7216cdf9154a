"""Rows on which a model abstained, as items of the review queue."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.serving.contract import InputContract
from aios_platform.serving.recording import ReviewItem
from aios_platform.serving.work import Work


def items_of(work: Work, contract: InputContract, features: FeatureSchema) -> Iterator[ReviewItem]:
    """An item for each row on which the model is not sure.

    Args:
        work: An answered request.
        contract: The newest contract, in which its rows are.
        features: The model's inputs, in which a whole frame is.
    """
    if work.unsure is None:
        return
    for place in np.flatnonzero(work.unsure).tolist():
        yield ReviewItem(
            model=work.version.model,
            version=work.version.version,
            request_id=work.request_id,
            place=work.places[place],
            row_id=work.ids[place],
            inputs=_inputs(work, place, contract, features),
            probability=float(work.probabilities[place]),
            reason="the model is not sure",
        )


def _inputs(
    work: Work, place: int, contract: InputContract, features: FeatureSchema
) -> dict[str, Any]:
    """What came for a row, by name."""
    if work.frame is None:
        assert work.rows is not None
        values: Sequence[Any] = work.rows[place]
        names: Sequence[str] = contract.names
    else:
        matrix, texts = work.frame
        numbers = [None if value != value else value for value in matrix[place].tolist()]
        values = [*numbers, *(column[place] or None for column in texts)]
        names = (*features.numerical, *features.categorical)
    plain: dict[str, Any] = msgspec.to_builtins(dict(zip(names, values, strict=True)))
    return plain
