"""An ONNX Runtime session that takes Arrow tables by column name."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from aios_platform.contracts.record import nearest
from aios_platform.errors import ScoringError

# Small enough for the intermediate values of a batch to stay in the processor's cache.
BATCH_ROWS = 1024
OUTPUT = "probability"
FLOAT = "tensor(float)"
STRING = "tensor(string)"
GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider")


class Session:
    """A model ready to score.

    Args:
        onnx: Bytes of a single-file ONNX model, one input per feature.
        digest: SHA-256 (hex) that the bytes must have; unset, they are trusted.
        threads: Threads per operator.

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
        strange = {name: kind for name, kind in self.inputs.items() if kind not in (FLOAT, STRING)}
        outputs = [entry.name for entry in self._session.get_outputs()]
        if strange or outputs != [OUTPUT]:
            raise ScoringError(
                f"The model has the outputs {outputs} and inputs of other types {strange}; "
                f"expected float and string inputs and one output '{OUTPUT}'.",
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
            if not (_is_number(found) if kind == FLOAT else _is_text(found)):
                expected = "a number" if kind == FLOAT else "a string"
                wrong.append(f"'{name}' is of type {found}, expected {expected}")
        if wrong:
            raise ScoringError(
                f"The frame does not fit the model's inputs: {'; '.join(wrong)}.",
                remedy="Build the frame from the feature service the model was trained on.",
            )

    def feeds(self, table: pa.Table | pa.RecordBatch) -> dict[str, NDArray[Any]]:
        """The model's inputs, shape (rows, 1) each: float32 with NaN, strings with "", for nulls.

        Raises:
            ScoringError: The columns do not fit.
        """
        self.check(table.schema)
        return {
            name: _numbers(table.column(name)) if kind == FLOAT else _texts(table.column(name))
            for name, kind in self.inputs.items()
        }

    def predict(self, table: pa.Table | pa.RecordBatch) -> NDArray[np.float32]:
        """Probabilities of the positive class.

        Args:
            table: Has a column per input, in any order; nulls are missing values.

        Returns:
            Shape (rows,), float32, each within [0, 1].

        Raises:
            ScoringError: The columns do not fit, or a probability is not finite.
        """
        columns = self.feeds(table)
        scores = [
            self._run(
                {name: column[start : start + BATCH_ROWS] for name, column in columns.items()}
            )
            for start in range(0, table.num_rows, BATCH_ROWS)
        ]
        probabilities: NDArray[np.float32] = (
            np.concatenate(scores) if scores else np.empty(0, dtype=np.float32)
        )
        good = (probabilities >= 0) & (probabilities <= 1)
        if not good.all():
            raise ScoringError(
                f"{int((~good).sum()):,} of {table.num_rows:,} probabilities are not within "
                f"[0, 1], e.g. {probabilities[~good][0]} in row {int(np.flatnonzero(~good)[0])}.",
                remedy="Do not use the model; promote an earlier version.",
            )
        return probabilities

    def _run(self, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        rows = len(next(iter(feeds.values())))
        try:
            (scores,) = self._session.run([OUTPUT], feeds)
        except Exception as error:
            raise ScoringError(
                f"ONNX Runtime failed on {rows:,} rows: {error}",
                remedy="Register the model again if its file is suspect.",
            ) from error
        if scores.shape != (rows,) or scores.dtype != np.float32:
            raise ScoringError(
                f"The model gave {scores.dtype} of shape {scores.shape} for "
                f"{rows:,} rows; expected one float32 per row.",
                remedy="Score models that the platform's training exported.",
            )
        found: NDArray[np.float32] = scores
        return found


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


def _is_text(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_null(plain)
    )


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
