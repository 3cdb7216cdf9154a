"""An ONNX Runtime session that takes Arrow tables by column name."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from aios_platform.columns import is_list, is_text, other_lengths, vector_matrix
from aios_platform.contracts.answers import ANSWERS_PROPERTY, BINARY_OUTPUT, AnswerSchema
from aios_platform.contracts.record import nearest
from aios_platform.errors import ScoringError

# Small enough for the intermediate values of a batch to stay in the processor's cache.
BATCH_ROWS = 1024
OUTPUT = BINARY_OUTPUT
SUM_TOLERANCE = 1e-4
FLOAT = "tensor(float)"
STRING = "tensor(string)"
GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider")


class Session:
    """A model ready to score.

    Args:
        onnx: Bytes of a single-file ONNX model, one input per feature.
        digest: SHA-256 (hex) that the bytes must have; unset, they are trusted.
        threads: Threads per operator.

    Attributes:
        digest: SHA-256 (hex) of the bytes.
        inputs: Type of each input by name.
        answers: What the model answers.

    Raises:
        ScoringError: The bytes do not have the digest, are not a model, refer to other files, or
            have inputs or outputs that are not ours.
    """

    def __init__(self, onnx: bytes, *, digest: str | None = None, threads: int = 1) -> None:
        self.digest = hashlib.sha256(onnx).hexdigest()
        if digest is not None and digest != self.digest:
            raise ScoringError(
                f"The model has the digest {self.digest[:12]}, not {digest[:12]}.",
                remedy="Load the model again through the registry; do not use these bytes.",
            )
        self._session = open_session(onnx, threads)
        inputs = self._session.get_inputs()
        self.inputs: Mapping[str, str] = {entry.name: entry.type for entry in inputs}
        self._lengths = {e.name: e.shape[1] for e in inputs if len(e.shape) == 2}
        self.answers = answers_of(self._session)
        strange = {name: kind for name, kind in self.inputs.items() if kind not in (FLOAT, STRING)}
        outputs = [entry.name for entry in self._session.get_outputs()]
        if strange or outputs != [self.answers.output]:
            raise ScoringError(
                f"The model has the outputs {outputs} and inputs of other types {strange}; "
                f"expected float and string inputs and one output '{self.answers.output}'.",
                remedy="Score models that the platform's training exported.",
            )

    def check(self, schema: pa.Schema) -> None:
        """Check that a frame of this schema can be scored.

        Raises:
            ScoringError: Columns are missing or of another type; all of them are named.
        """
        wrong = []
        for name, kind in self.inputs.items():
            index = schema.get_field_index(name)
            if index < 0:
                wrong.append(f"'{name}' is missing ({nearest(name, schema.names)})")
                continue
            found = schema.field(index).type
            length = self._lengths.get(name)
            if kind == STRING:
                fits, expected = _is_text(found), "a string"
            elif isinstance(length, int) and (length > 1 or is_list(found)):
                fits, expected = _is_vector(found, length), f"a vector of {length} numbers"
            else:
                fits, expected = _is_number(found), "a number"
            if not fits:
                wrong.append(f"'{name}' is of type {found}, expected {expected}")
        if wrong:
            raise ScoringError(
                f"The frame does not fit the model's inputs: {'; '.join(wrong)}.",
                remedy="Build the frame from the feature service the model was trained on.",
            )

    def feeds(self, table: pa.Table | pa.RecordBatch) -> dict[str, NDArray[Any]]:
        """The model's inputs.

        Numbers are float32 (rows, 1) and vectors float32 (rows, length), NaN for nulls; categories
        (rows, 1) and texts (rows,) are strings, "" for nulls.

        Raises:
            ScoringError: The columns do not fit, or a vector has another length.
        """
        self.check(table.schema)
        return {name: self._feed(name, kind, table) for name, kind in self.inputs.items()}

    def _feed(self, name: str, kind: str, table: pa.Table | pa.RecordBatch) -> NDArray[Any]:
        column = table.column(name)
        if kind == STRING:
            texts = _texts(column)
            return texts if name in self._lengths else texts[:, 0]
        if is_list(column.type):
            return _vectors(column, name, self._lengths[name])
        return _numbers(column)

    def predict(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.float32]:
        """What the model answers.

        Args:
            table: Has a column per input, in any order; nulls are missing values.

        Returns:
            Shape (rows,) or, with several answer columns, (rows, columns), float32: probabilities
            within [0, 1], which sum to 1 where there are several classes; or finite values and
            rising quantiles.

        Raises:
            ScoringError: The columns do not fit, or an answer is not one of the task.
        """
        columns = self.feeds(table)
        scores = [
            self._run(
                {name: column[start : start + BATCH_ROWS] for name, column in columns.items()}
            )
            for start in range(0, table.num_rows, BATCH_ROWS)
        ]
        flat, width = self.answers.flat, len(self.answers.columns)
        none: NDArray[np.float32] = np.empty((0,) if flat else (0, width), dtype=np.float32)
        found = np.concatenate(scores) if scores else none
        good = possible(found, self.answers)
        if not good.all():
            kind = "answers" if self.answers.task == "regression" else "probabilities"
            raise ScoringError(
                f"{int((~good).sum()):,} of {table.num_rows:,} {kind} are not {EXPECTED[kind]}, "
                f"e.g. {found[~good][0]} in row {int(np.flatnonzero(~good)[0])}.",
                remedy="Do not use the model; promote an earlier version.",
            )
        return found

    def _run(self, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        rows = len(next(iter(feeds.values())))
        try:
            (scores,) = self._session.run(None, feeds)
        except Exception as error:
            raise ScoringError(
                f"ONNX Runtime failed on {rows:,} rows: {error}",
                remedy="Register the model again if its file is suspect.",
            ) from error
        columns = len(self.answers.columns)
        expected = (rows,) if self.answers.output == BINARY_OUTPUT else (rows, columns)
        if scores.shape != expected or scores.dtype != np.float32:
            raise ScoringError(
                f"The model gave {scores.dtype} of shape {scores.shape} for "
                f"{rows:,} rows; expected float32 of shape {expected}.",
                remedy="Score models that the platform's training exported.",
            )
        found: NDArray[np.float32] = scores[:, 0] if scores.ndim == 2 and columns == 1 else scores
        return found


EXPECTED = {
    "answers": "finite with rising quantiles",
    "probabilities": "within [0, 1]",
}


def answers_of(session: Any) -> AnswerSchema:
    """What a model says of its answers; one that says nothing answers a probability."""
    said = session.get_modelmeta().custom_metadata_map.get(ANSWERS_PROPERTY)
    if said is None:
        return AnswerSchema()
    try:
        return AnswerSchema.model_validate_json(said)
    except ValidationError as error:
        raise ScoringError(
            f"The model's property '{ANSWERS_PROPERTY}' is not a schema of answers: {error}",
            remedy="Score models that the platform's training exported.",
        ) from error


def possible(found: NDArray[np.float32], answers: AnswerSchema) -> NDArray[np.bool_]:
    """Which rows have an answer that the task allows, shape (rows,)."""
    if answers.task == "binary_classification":
        return np.asarray((found >= 0) & (found <= 1))
    if answers.task == "multiclass_classification":
        within = ((found >= 0) & (found <= 1)).all(axis=1)
        return np.asarray(within & (np.abs(found.sum(axis=1) - 1) <= SUM_TOLERANCE))
    if answers.flat:
        return np.asarray(np.isfinite(found))
    rising = (np.diff(found[:, 1:], axis=1) >= 0).all(axis=1)
    return np.asarray(np.isfinite(found).all(axis=1) & rising)


def open_session(onnx: bytes, threads: int, *, accelerated: bool = False) -> Any:
    """An ONNX Runtime session on these bytes, which read no other file.

    Args:
        onnx: A single-file model.
        threads: Threads per operator.
        accelerated: Whether to score on a GPU where ONNX Runtime has a provider for it; answers
            then agree with the processor's within float32 rounding, not bit for bit.

    Raises:
        ScoringError: The bytes are not a model, or refer to other files.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads must not spin on cores that others need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _refuse_other_files(onnx)
    present = ort.get_available_providers() if accelerated else []
    providers = [name for name in GPU_PROVIDERS if name in present]
    try:
        return ort.InferenceSession(onnx, options, providers=[*providers, "CPUExecutionProvider"])
    except Exception as error:
        raise ScoringError(
            f"The bytes are not a model that ONNX Runtime can open: {error}",
            remedy="Load the model again through the registry.",
        ) from error


def _refuse_other_files(onnx: bytes) -> None:
    """A model with external data would read files that no digest covers."""
    import onnx as onnx_format

    try:
        graph = onnx_format.load_from_string(onnx).graph
    except Exception as error:
        raise ScoringError(
            f"The bytes are not an ONNX model: {error}",
            remedy="Load the model again through the registry.",
        ) from error
    external = sorted(
        tensor.name
        for tensor in _tensors(graph)
        if tensor.data_location == onnx_format.TensorProto.EXTERNAL or tensor.external_data
    )
    if external:
        raise ScoringError(
            f"The model keeps the tensors {external[:3]} in other files.",
            remedy="Export it as a single file.",
        )


def _tensors(graph: Any) -> Iterator[Any]:
    """Every tensor of a graph: initializers, attributes of nodes, and those of subgraphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for subgraph in (attribute.g, *attribute.graphs):
                if subgraph.ByteSize():
                    yield from _tensors(subgraph)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))


def _is_vector(kind: pa.DataType, length: int) -> bool:
    if pa.types.is_fixed_size_list(kind) and kind.list_size != length:
        return False
    return is_list(kind) and _is_number(kind.value_type)


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_text(kind) or bool(pa.types.is_null(plain))


def _vectors(column: pa.Array | pa.ChunkedArray, name: str, length: int) -> NDArray[np.float32]:
    wrong = other_lengths(column, length)
    if wrong:
        raise ScoringError(
            f"The vectors of '{name}' have {wrong[:3]} numbers in some rows; the model "
            f"takes {length}.",
            remedy="Send vectors of the declared length.",
        )
    return vector_matrix(column, length)


def _numbers(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    values = column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float32).reshape(-1, 1)


def _texts(column: pa.Array | pa.ChunkedArray) -> NDArray[np.object_]:
    """Strings through their dictionary: few Python objects, many references to them."""
    texts = column.cast(pa.string()).fill_null("")
    whole = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    encoded = whole.dictionary_encode()
    values = np.array(encoded.dictionary.to_pylist(), dtype=object)
    chosen: NDArray[np.object_] = values[encoded.indices.to_numpy(zero_copy_only=False)]
    return chosen.reshape(-1, 1)
