"""The form of recorded traffic: an Arrow IPC stream, zstd, a row per answer.

The gateway writes it (`serving.recording`), monitoring reads it (`monitoring.served`).
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.errors import ArtifactCorrupt
from aios_platform.metrics.truth import by_column

INSTANT = pa.timestamp("us", tz="UTC")
KIND, ORIGIN = b"kind", b"origin"
ANSWER = (
    pa.field("request_id", pa.string()),
    pa.field("place", pa.int32()),
    pa.field("row_id", pa.string()),
    pa.field("served_at", INSTANT),
    pa.field("moment", INSTANT),
    pa.field("source", pa.string()),
)
"""Beside them, the answer columns (float32)."""
_OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


class ServedRows(NamedTuple):
    """One micro-batch that one version answered.

    Attributes:
        model: Name of the model.
        version: Registered version that answered.
        model_digest: SHA-256 (hex) of its ONNX bytes.
        features: Its inputs.
        request_ids: Request of each row.
        places: Place of each row in its request.
        row_ids: The caller's name of each row, by which its label is found; None: not named.
        served_at: When it was answered, Unix seconds.
        moments: Prediction time of each row, Unix seconds, shape (rows,).
        matrix: Numerical inputs in the order of the schema, NaN where missing, shape
            (rows, numericals); then the elements of each vector.
        texts: Per categorical input, then per text, the value of each row, '' where missing.
        probabilities: Shape (rows,), or (rows, answer columns) where there are several.
        sources: Who answered each row: a tier, 'cache' or a hop of the chain.
        schema: What the version answers.
    """

    model: str
    version: str
    model_digest: str
    features: FeatureSchema
    request_ids: list[str]
    places: list[int]
    row_ids: list[str | None]
    served_at: float
    moments: NDArray[np.float64]
    matrix: NDArray[np.float32]
    texts: tuple[list[str], ...]
    probabilities: NDArray[np.float32]
    sources: list[str]
    schema: AnswerSchema = AnswerSchema()

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.request_ids)


def encode(batches: Sequence[ServedRows]) -> bytes:
    """Micro-batches of one version as one stream.

    Raises:
        ValueError: A column is not as long as the others, or a text is not Unicode.
    """
    features = batches[0].features
    schema = batches[0].schema
    scores = np.concatenate([batch.probabilities for batch in batches])
    numbers = np.ascontiguousarray(np.concatenate([batch.matrix for batch in batches]).T)
    columns = [
        pa.array(_chained(batch.request_ids for batch in batches), pa.string()),
        pa.array(_chained(batch.places for batch in batches), pa.int32()),
        pa.array(_chained(batch.row_ids for batch in batches), pa.string()),
        _instants(_served_at(batches)),
        _instants(predicted_at(batches)),
        pa.array(_chained(batch.sources for batch in batches), pa.string()),
    ]
    fields = list(ANSWER)
    for name, values in by_column(scores, schema).items():
        columns.append(pa.array(values, pa.float32()))
        fields.append(pa.field(name, pa.float32()))
    texts = dict(
        zip(
            (*features.categorical, *features.texts),
            zip(*(batch.texts for batch in batches), strict=True),
            strict=True,
        )
    )
    floats = iter(numbers[: len(features.numerical)])
    start = len(features.numerical)
    for feature in features.fields:
        metadata = {KIND: feature.kind.encode(), ORIGIN: feature.origin.encode()}
        if feature.kind is FieldKind.NUMERICAL:
            columns.append(pa.array(next(floats), from_pandas=True))
            fields.append(pa.field(feature.name, pa.float32(), metadata=metadata))
        elif feature.kind is FieldKind.VECTOR:
            end = start + (feature.length or 0)
            columns.append(_lists(numbers[start:end]))
            fields.append(pa.field(feature.name, columns[-1].type, metadata=metadata))
            start = end
        else:
            columns.append(pa.array(_chained(texts[feature.name]), pa.string()))
            fields.append(pa.field(feature.name, pa.string(), metadata=metadata))
    arrow = pa.schema(fields)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, arrow, options=_OPTIONS) as writer:
        writer.write_batch(pa.record_batch(columns, schema=arrow))
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _lists(elements: NDArray[np.float32]) -> pa.Array:
    """Vectors of float32, null where there is none.

    Args:
        elements: Shape (length, rows).
    """
    flat = pa.array(np.ascontiguousarray(elements.T).reshape(-1))
    absent = pa.array(np.isnan(elements).all(axis=0))
    return pa.FixedSizeListArray.from_arrays(flat, len(elements), mask=absent)


def predicted_at(batches: Sequence[ServedRows]) -> NDArray[np.float64]:
    """Prediction time of each row, Unix seconds, shape (rows,); without one, when it was served."""
    moments = np.concatenate([batch.moments for batch in batches])
    return np.where(np.isfinite(moments), moments, _served_at(batches))


class Served(NamedTuple):
    """Recorded answers of one version.

    Attributes:
        answers: The columns of `ANSWER`, and the answer columns.
        inputs: The inputs, missing values null: numericals float32, categoricals and texts
            string, vectors lists of float32.
        features: The inputs' schema.
    """

    answers: pa.Table
    inputs: pa.Table
    features: FeatureSchema


def decode(content: bytes) -> Served:
    """The rows of a stream.

    Raises:
        ArtifactCorrupt: The bytes are not such a stream.
    """
    try:
        table = pa.ipc.open_stream(content).read_all()
        fields = list(table.schema)
        # Only inputs say of which kind they are.
        own = [place for place, field in enumerate(fields) if not field.metadata]
        told = pa.schema(ANSWER)
        answers = table.select(own)
        types = [
            told.field(name) if name in told.names else pa.field(name, pa.float32())
            for name in answers.column_names
        ]
        if missing := set(told.names) - set(answers.column_names):
            raise ValueError(f"it has no column {sorted(missing)[0]}")
        answers = answers.cast(pa.schema(types))
        features = tuple(_feature(field) for field in fields[len(own) :])
    except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError) as error:
        raise ArtifactCorrupt(
            f"Recorded traffic of {len(content):,} bytes cannot be read: {error}.",
            remedy="Restore the table served_batch from a backup, or delete the row.",
        ) from error
    inputs = [
        _present(column) if pa.types.is_string(column.type) else column
        for column in table.columns[len(own) :]
    ]
    names = [feature.name for feature in features]
    return Served(answers, pa.table(inputs, names=names), FeatureSchema(fields=features))


def _feature(field: pa.Field) -> FeatureField:
    metadata = field.metadata
    return FeatureField(
        name=field.name,
        kind=FieldKind(metadata[KIND].decode()),
        origin=metadata[ORIGIN].decode(),
        length=field.type.list_size if pa.types.is_fixed_size_list(field.type) else None,
    )


def _present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)


def _chained(parts: Iterable[Iterable[Any]]) -> list[Any]:
    return list(chain.from_iterable(parts))


def _served_at(batches: Sequence[ServedRows]) -> NDArray[np.float64]:
    return np.repeat([batch.served_at for batch in batches], [batch.rows for batch in batches])


def _instants(seconds: NDArray[np.float64]) -> pa.Array:
    return pa.array(np.round(seconds * 1e6).astype(np.int64)).cast(INSTANT)
