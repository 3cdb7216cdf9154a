"""Labels meet predictions: by row id, each at the time when it became known."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.declaration import Label
from aios_platform.contracts.record import nearest
from aios_platform.errors import DataError
from aios_platform.metrics.truth import answers_in, label_type, truth_of

if TYPE_CHECKING:
    import polars as pl

SCORE = "probability"
PREDICTED_AT = "prediction_time"
KNOWN_AT = pa.timestamp("us", tz="UTC")
COUNTS = (
    "predictions",
    "labels",
    "matched",
    "unlabelled_predictions",
    "unpredicted_labels",
    "repeated_labels",
    "corrected_labels",
    "contradictory_labels",
    "premature_labels",
)


@dataclass(frozen=True)
class Matched:
    """Predictions that have a truth.

    Attributes:
        labels: Shape (n,): bool, class codes or float64.
        scores: Shape (n,), or (n, answer columns); NaN where a prediction has none.
        places: Place of each among the predictions, shape (n,).
        counts: What was matched and what was not, by the names of `COUNTS`.
    """

    labels: NDArray[Any]
    scores: NDArray[np.float64]
    places: NDArray[np.intp]
    counts: dict[str, int]


def match_labels(
    window: str,
    predictions: pa.Table,
    truth: pa.Table,
    row_id: str,
    label: Label,
    as_of: datetime,
    answers: AnswerSchema | None = None,
) -> Matched:
    """Join predictions with the labels that were known by a time.

    Args:
        window: Key of the window, for messages.
        predictions: Row id and the answer columns; with `prediction_time`, what was known by then
            is left out.
        truth: Row id, label (nullable) and its known-at time (UTC).
        row_id: Column that names a row, in both tables.
        label: The declared label.
        as_of: Time of asking (aware).
        answers: What the model answers; unset, a probability.

    Raises:
        DataError: A column is missing, a row was predicted twice, or a label is none of the task.
    """
    import polars as pl

    answers = answers or AnswerSchema()
    what = f"predictions of {window}"
    made = table_columns(what, predictions, {row_id: pa.string()})
    scores = answers_in(predictions, answers)
    facts = table_columns(
        f"labels of {window}",
        truth,
        {row_id: pa.string(), label.column: label_type(answers.task), label.known_at: KNOWN_AT},
    )
    answered = pl.DataFrame({"id": made[0]}).with_row_index("place")
    if answered["id"].n_unique() != answered.height or answered["id"].null_count():
        raise DataError(
            f"The predictions of {window} name a row twice, or not at all.",
            remedy="Score the window again; predictions have one row per row id.",
        )
    known = (
        pl.DataFrame({"id": facts[0], "label": facts[1], "known_at": facts[2]})
        .drop_nulls()
        .filter(pl.col("known_at") <= as_of)
        .sort("id", "known_at", "label")
    )
    unique = known.unique("id", keep="last", maintain_order=True)
    contradictory, corrected = _told_otherwise(known, unique)
    joined = answered.join(unique, on="id", how="inner").sort("id")
    fit = joined.join(contradictory, on="id", how="anti").sort("id")
    premature = 0
    if PREDICTED_AT in predictions.column_names:
        (times,) = table_columns(what, predictions, {PREDICTED_AT: KNOWN_AT})
        asked_at = pl.Series("asked_at", times)[fit["place"]]
        late_enough = fit.filter((fit["known_at"] > asked_at) | asked_at.is_null())
        premature, fit = fit.height - late_enough.height, late_enough
    places = fit["place"].to_numpy().astype(np.intp)
    return Matched(
        labels=truth_of(fit["label"].to_arrow(), answers),
        scores=scores[places],
        places=places,
        counts={
            "predictions": answered.height,
            "labels": unique.height,
            "matched": fit.height,
            "unlabelled_predictions": answered.height - joined.height,
            "unpredicted_labels": unique.height - joined.height,
            "repeated_labels": known.height - unique.height,
            "corrected_labels": corrected,
            "contradictory_labels": joined.height - fit.height - premature,
            "premature_labels": premature,
        },
    )


def _told_otherwise(known: "pl.DataFrame", unique: "pl.DataFrame") -> "tuple[pl.DataFrame, int]":
    """Rows told two things at their last time, and how many others were once told otherwise."""
    import polars as pl

    if known.height == unique.height:
        return unique.select("id").clear(), 0
    last = known.join(unique.select("id", "known_at"), on=["id", "known_at"], how="semi")
    both = pl.col("label").n_unique() > 1
    contradictory = last.group_by("id").agg(both.alias("both")).filter("both").select("id")
    once = known.group_by("id").agg(both.alias("both")).filter("both")
    return contradictory, once.height - contradictory.height


def table_columns(
    what: str, table: pa.Table, types: dict[str, pa.DataType | None]
) -> list[pa.ChunkedArray]:
    """Columns of a table by name, each cast to its type where one is given.

    Args:
        what: What the table is, for messages.
        table: The table.
        types: Wanted columns, in the order of the result.

    Raises:
        DataError: A column is missing.
    """
    found = []
    for name, kind in types.items():
        if name not in table.column_names:
            raise DataError(
                f"The {what} have no column '{name}'. {nearest(name, table.column_names)}",
                remedy="Hand over the table as it was written.",
            )
        column = table[name]
        found.append(column if kind is None else column.cast(kind))
    return found
