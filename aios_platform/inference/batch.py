"""Batch scoring of one window: streamed, pinned to a model version, done once."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pad

from aios_platform.artifacts import ROW_GROUP_ROWS, ArtifactStore
from aios_platform.contracts.answers import PREDICTED, AnswerSchema
from aios_platform.contracts.datasets import DatasetVersion
from aios_platform.contracts.record import digest_of
from aios_platform.errors import ScoringError
from aios_platform.inference.session import Session
from aios_platform.metrics.truth import by_column, likeliest

BATCH_ROWS = 8192

Frame: TypeAlias = pa.Table | pad.Dataset | Iterable[pa.RecordBatch | pa.Table]


def score_window(
    session: Session,
    frame: Frame,
    store: ArtifactStore,
    *,
    model: str,
    version: str,
    window: str,
    row_id: str,
    prediction_time: str,
    inputs: Mapping[str, str],
    scored_at: datetime | None = None,
) -> DatasetVersion:
    """Score the rows of a window and make the predictions current under `<model>/predictions`.

    The same model version over the same inputs is not scored again; another one gives a new
    version of the dataset beside the old.

    Args:
        session: The model.
        frame: The window's feature frame: a table, a dataset, or batches to stream.
        store: Where the predictions go.
        model: Name of the declared model.
        version: Registered version that the session holds.
        window: Key of the window.
        row_id: Column that names a row; no null, no duplicate.
        prediction_time: Column of the time the prediction is for.
        inputs: Digests of what the frame was made from.
        scored_at: When this happens, aware; unset, now. It does not count for idempotence.

    Returns:
        The version that holds the predictions: one row per row of the frame, in its order, with
        the columns of `prediction_schema`.

    Raises:
        ScoringError: The frame does not fit the model, a row has no name or shares it, or a
            answer is not one of the task. No version becomes visible then.
    """
    made_from = {
        **inputs,
        "model": model,
        "model_version": version,
        "model_digest": session.digest,
    }
    dataset = f"{model}/predictions"
    fresh = store.fresh(dataset, window, made_from)
    if fresh is not None:
        return fresh
    batches = _batches(frame)
    first = next(batches, None)
    if first is None:
        raise ScoringError(
            f"The feature frame of '{model}' for window '{window}' has no batches.",
            remedy="Materialize the features of the window first.",
        )
    for column in (row_id, prediction_time):
        if column not in first.schema.names:
            raise ScoringError(
                f"The feature frame of '{model}' for window '{window}' lacks '{column}'.",
                remedy="Build the frame from the declared source.",
            )
    session.check(first.schema)
    schema = prediction_schema(first.schema.field(row_id), session.answers)
    constants = {
        "model_version": version,
        "model_digest": session.digest,
        "features_digest": digest_of(dict(inputs)),
        "scored_at": scored_at or datetime.now(UTC),
    }
    prefix = f"{model}:{version}:{window}"
    scored = (
        _score(session, batch, schema, row_id, prediction_time, prefix, constants)
        for batch in _chain(first, batches)
    )
    return store.write(
        dataset, window, _grouped(scored, schema, row_id), schema=schema, inputs=made_from
    )


def prediction_schema(row_id: pa.Field, answers: AnswerSchema | None = None) -> pa.Schema:
    """Columns of stored predictions: the answer columns, and of several classes the likeliest.

    Args:
        row_id: The field of the frame that names a row; it keeps its name and type.
        answers: What the model answers; unset, a probability.
    """
    answers = answers or AnswerSchema()
    likeliest = [pa.field(PREDICTED, pa.string(), nullable=False)] if answers.classes else []
    return pa.schema(
        [
            pa.field("prediction_id", pa.string(), nullable=False),
            pa.field(row_id.name, row_id.type, nullable=False),
            pa.field("prediction_time", pa.timestamp("us", "UTC")),
            *(pa.field(name, pa.float32(), nullable=False) for name in answers.columns),
            *likeliest,
            pa.field("model_version", pa.string(), nullable=False),
            pa.field("model_digest", pa.string(), nullable=False),
            pa.field("features_digest", pa.string(), nullable=False),
            pa.field("scored_at", pa.timestamp("us", "UTC"), nullable=False),
        ]
    )


def _batches(frame: Frame) -> Iterator[pa.RecordBatch]:
    if isinstance(frame, pad.Dataset):
        parts: Iterable[pa.RecordBatch | pa.Table] = frame.to_batches(
            batch_size=BATCH_ROWS, batch_readahead=4
        )
    else:
        parts = [frame] if isinstance(frame, pa.Table) else frame
    none = True
    for part in parts:
        whole = pa.table(part) if isinstance(part, pa.RecordBatch) else part
        for batch in whole.to_batches(max_chunksize=BATCH_ROWS):
            none = False
            yield batch
    if none and isinstance(frame, pad.Dataset | pa.Table):
        yield pa.RecordBatch.from_pylist([], frame.schema)


def _chain(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _score(
    session: Session,
    batch: pa.RecordBatch,
    schema: pa.Schema,
    row_id: str,
    prediction_time: str,
    prefix: str,
    constants: Mapping[str, object],
) -> pa.RecordBatch:
    names = batch.column(row_id)
    if names.null_count:
        raise ScoringError(
            f"{names.null_count:,} rows of the frame have no '{row_id}'.",
            remedy="Quarantine rows without an id before features are built.",
        )
    columns = {
        "prediction_id": pc.binary_join_element_wise(prefix, names.cast(pa.string()), ":"),
        row_id: names,
        "prediction_time": batch.column(prediction_time).cast(pa.timestamp("us", "UTC")),
        **_answer_columns(session, batch),
        **{
            name: pa.repeat(pa.scalar(value, schema.field(name).type), batch.num_rows)
            for name, value in constants.items()
        },
    }
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _answer_columns(session: Session, batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Answer columns, and the likeliest class where there are several."""
    answers = session.answers
    found = session.predict(batch)
    columns = {name: pa.array(values) for name, values in by_column(found, answers).items()}
    if answers.classes:
        columns[PREDICTED] = likeliest(found, answers.classes)
    return columns


def _grouped(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, row_id: str
) -> Iterator[pa.Table]:
    """Tables of a row group each; refuses duplicate ids before the last one is written."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    names: list[pa.Array] = []
    for batch in batches:
        names.append(batch.column(row_id))
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= ROW_GROUP_ROWS:
            yield pa.Table.from_batches(waiting, schema)
            waiting, rows = [], 0
    every = pa.chunked_array(names, schema.field(row_id).type)
    duplicates = len(every) - len(pc.unique(every))
    if duplicates:
        raise ScoringError(
            f"{duplicates:,} of {len(every):,} rows share their '{row_id}' with another row.",
            remedy="Quarantine duplicate ids before features are built.",
        )
    if waiting:
        yield pa.Table.from_batches(waiting, schema)
