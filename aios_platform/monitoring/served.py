"""Recorded traffic of a window, as the tables in which monitoring takes batch predictions.

A row belongs to the window whose delivered rows name it, else to the one its prediction time is in.
An answer of the simple model or the safe default says nothing about the version and is left out.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import text

from aios_platform.contracts.answers import PREDICTED
from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.contracts.declaration import Label
from aios_platform.contracts.serving import Hop
from aios_platform.contracts.windows import Window
from aios_platform.metrics.truth import likeliest
from aios_platform.monitoring.labels import KNOWN_AT, PREDICTED_AT
from aios_platform.monitoring.served_content import ANSWER, Served, decode

if TYPE_CHECKING:
    import polars as pl

    from aios_platform.database import Database

ROW = "row_id"
MICROSECOND = timedelta(microseconds=1)
MOST_ROWS = 500_000
"""Of a version and window; of more, every n-th stream is read."""
OF_CLASS = "probability_"
KEPT = (ROW, PREDICTED_AT, "model_version")
NOT_ITS_OWN = (Hop.SIMPLE, Hop.DEFAULT, "")


@dataclass(frozen=True)
class ServedWindow:
    """What one version answered of one window.

    Attributes:
        version: The version.
        features: Its inputs.
        answers: Row id (string), `prediction_time`, answer columns, `model_version`, `served_at` of
            every answer of its own.
        inputs: The inputs of each, missing values null, in the same order.
        by_source: Answers by who gave them, those left out included.
        read: Share of the requests that is here: as declared, and as was read of that.
    """

    version: str
    features: FeatureSchema
    answers: pa.Table
    inputs: pa.Table
    by_source: Mapping[str, int]
    read: float

    @property
    def unnamed(self) -> int:
        """Answers without a row id: no label will find them."""
        return int(self.answers[ROW].null_count)


def read_served(
    database: "Database", model: str, window: Window, rows: pa.Table, row_id: str, asked_at: str
) -> list[ServedWindow]:
    """What each version answered of a window; nothing where nothing was served.

    Args:
        database: Where the record is.
        model: Name of the model.
        window: The window.
        rows: The window's delivered rows: their ids and prediction times (UTC).
        row_id: Column that names a row.
        asked_at: Column of the prediction time.

    Raises:
        DatabaseUnavailable: The record cannot be read.
        ArtifactCorrupt: A part of it is damaged.
    """
    # A row's window is that of its event; its prediction may have been asked for before.
    ends = pc.min_max(rows[asked_at].cast(KNOWN_AT)).as_py()
    first = min(window.start, ends["min"] or window.start)
    last = max(window.end, ends["max"] or window.end)
    named = pc.unique(rows[row_id].cast(pa.string()))
    found = []
    for version, (parts, read) in _parts(database, model, first, last).items():
        part = _within(_joined(parts), window, first, last, named)
        if part.answers.num_rows:
            found.append(_own(version, part, read))
    return found


def predictions_of(
    served: ServedWindow, truth: pa.Table, row_id: str, label: Label
) -> tuple[pa.Table, pa.Table]:
    """One prediction per row: the last answer that was asked for before its label was known.

    Where every answer came after the label, the last one stands; it then counts as premature.

    Args:
        served: The answers.
        truth: Row id and the time the label became known (UTC), of the window's rows.
        row_id: Column that names a row, in `truth` and the result.
        label: The declared label.

    Returns:
        Row id, answer columns, `model_version` and `prediction_time` of each prediction, by row id;
        and its inputs, in the same order.
    """
    import polars as pl

    told = (
        pl.DataFrame(
            {ROW: truth[row_id].cast(pa.string()), "known": truth[label.known_at].cast(KNOWN_AT)}
        )
        .drop_nulls()
        .group_by(ROW)
        .agg(pl.col("known").min())
    )
    answers, inputs = last_answers(served, told)
    columns = [name for name in answers.column_names if name not in (*KEPT, "served_at")]
    chosen = answers.select([ROW, *columns, "model_version", PREDICTED_AT])
    return chosen.rename_columns([row_id, *chosen.column_names[1:]]), inputs


def last_answers(
    served: ServedWindow, told: "pl.DataFrame | None" = None
) -> tuple[pa.Table, pa.Table]:
    """The last answer about each named row, and its inputs, by row id.

    Args:
        served: The answers.
        told: Row id, and when (`known`) its label became known: answers asked for before that
            come first.
    """
    import polars as pl

    if told is None:
        told = pl.DataFrame(schema={ROW: pl.String, "known": pl.Datetime("us", "UTC")})
    answers = pl.DataFrame(served.answers).with_row_index("at")
    last = (
        answers.drop_nulls(ROW)
        .join(told, on=ROW, how="left")
        .with_columns(early=(pl.col(PREDICTED_AT) < pl.col("known")).fill_null(True))
        .sort(ROW, "early", PREDICTED_AT, "served_at", "at")
        .unique(ROW, keep="last", maintain_order=True)
    )
    places = pa.array(last["at"].to_numpy())
    return served.answers.take(places), served.inputs.take(places)


def _parts(
    database: "Database", model: str, first: datetime, last: datetime
) -> dict[str, tuple[list[Served], float]]:
    """The streams that reach into a span, by version, and the share of the traffic they are."""
    span = {"model": model, "first": first.astimezone(UTC), "last": last.astimezone(UTC)}
    with database.begin() as connection:
        listed = connection.execute(
            text(
                "SELECT id, version, rows, share FROM served_batch WHERE model = :model "
                "AND last_predicted >= :first AND first_predicted <= :last ORDER BY id"
            ),
            span,
        ).all()
        found = {}
        for version in sorted({row.version for row in listed}):
            mine = [row for row in listed if row.version == version]
            rows = sum(row.rows for row in mine)
            chosen = mine[:: -(-rows // MOST_ROWS)]
            share = sum(row.share * row.rows for row in mine) / rows
            read = share * sum(row.rows for row in chosen) / rows
            contents = connection.execute(
                text("SELECT content FROM served_batch WHERE id = ANY(:ids) ORDER BY id"),
                {"ids": [row.id for row in chosen]},
            ).scalars()
            found[version] = ([decode(bytes(content)) for content in contents], read)
    return found


def _joined(parts: list[Served]) -> Served:
    return Served(
        pa.concat_tables([part.answers for part in parts]),
        pa.concat_tables([part.inputs for part in parts]),
        parts[0].features,
    )


def _within(
    part: Served, window: Window, first: datetime, last: datetime, named: pa.Array
) -> Served:
    moments = part.answers["moment"]
    inside = _between(moments, window.start, window.end)
    # The rows of a stream may reach further than any row of the window.
    ours = pc.is_in(part.answers[ROW], value_set=named)
    ours = pc.and_(ours, _between(moments, first, last + MICROSECOND))
    chosen = pc.or_(inside, ours)
    return Served(part.answers.filter(chosen), part.inputs.filter(chosen), part.features)


def _between(moments: pa.ChunkedArray, start: datetime, end: datetime) -> pa.ChunkedArray:
    return pc.and_(
        pc.greater_equal(moments, pa.scalar(start.astimezone(UTC), KNOWN_AT)),
        pc.less(moments, pa.scalar(end.astimezone(UTC), KNOWN_AT)),
    )


def _answered(answers: pa.Table) -> dict[str, pa.ChunkedArray]:
    """The answer columns of a record and, of several classes, the likeliest one's name."""
    told = {field.name for field in ANSWER}
    found = {name: answers[name] for name in answers.column_names if name not in told}
    classes = [name.removeprefix(OF_CLASS) for name in found if name.startswith(OF_CLASS)]
    if classes and answers.num_rows:
        scores = np.column_stack([column.to_numpy() for column in found.values()])
        found[PREDICTED] = likeliest(scores, classes)
    return found


def _own(version: str, part: Served, read: float) -> ServedWindow:
    sources = part.answers["source"]
    own = pc.invert(pc.is_in(sources, value_set=pa.array(NOT_ITS_OWN, pa.string())))
    answers = part.answers.filter(own)
    return ServedWindow(
        version=version,
        features=part.features,
        answers=pa.table(
            {
                ROW: answers[ROW],
                PREDICTED_AT: answers["moment"],
                **_answered(answers),
                "model_version": pa.repeat(version, answers.num_rows),
                "served_at": answers["served_at"],
            }
        ),
        inputs=part.inputs.filter(own),
        by_source=dict(sorted(Counter(sources.to_pylist()).items())),
        read=read,
    )
