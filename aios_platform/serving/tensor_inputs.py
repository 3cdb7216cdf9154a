"""Tensors of the Open Inference Protocol as columns: listed in JSON, or packed after it."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from aios_platform.contracts.answers import PREDICTED, AnswerSchema
from aios_platform.errors import RequestRefused
from aios_platform.serving.arrow_streams import NARROW, Shapes, refuse_growth
from aios_platform.serving.requests import LONGEST_NAME

HEADER_LENGTH = b"inference-header-content-length"
DATATYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
TEXT = "BYTES"


def outputs_of(answers: AnswerSchema) -> dict[str, str]:
    """Datatype of each output of a model by its name."""
    found = dict.fromkeys(answers.columns, "FP32")
    if answers.classes:
        found[PREDICTED] = TEXT
    return {**found, "source": TEXT, "abstained": "BOOL", "version": TEXT}


class Output(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = {}


class Tensor(msgspec.Struct):
    """An input as it came."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = None
    parameters: dict[str, Any] = {}


class InferRequest(msgspec.Struct):
    """The JSON part of a request."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[Output] = []
    parameters: dict[str, Any] = {}


_decode = msgspec.json.Decoder(InferRequest).decode


def read_tensors(
    headers: list[tuple[bytes, bytes]], body: bytes, outputs: Mapping[str, str]
) -> tuple[InferRequest, bytes]:
    """The JSON part of a request, and the binary part after it.

    Raises:
        RequestRefused: It cannot be read.
    """
    length = next((value for name, value in headers if name == HEADER_LENGTH), None)
    binary = b""
    if length is not None:
        if not (length.isdigit() and len(length) < 20 and int(length) <= len(body)):
            raise RequestRefused(
                "The header inference-header-content-length is wrong.", code="malformed_body"
            )
        body, binary = body[: int(length)], body[int(length) :]
    try:
        asked = _decode(body)
    except msgspec.ValidationError as error:
        raise RequestRefused(f"The request is none of V2: {error}.", code="invalid_input") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(
            f"The body is not JSON: {str(error)[:200]}.", code="malformed_body"
        ) from None
    _check(asked, outputs)
    return asked, binary


def _check(asked: InferRequest, outputs: Mapping[str, str]) -> None:
    """Refuse what the types do not say, before anything is computed."""
    if asked.id is not None and not (len(asked.id) <= LONGEST_NAME and asked.id.isprintable()):
        raise RequestRefused("The id is too long or cannot be printed.", code="invalid_input")
    for output in asked.outputs:
        if output.name not in outputs:
            raise RequestRefused(f"There is no output '{output.name[:50]}'.", code="invalid_input")


def columns_of(
    tensors: Sequence[Tensor], binary: bytes, most: int, shapes: Shapes = NARROW
) -> dict[str, pa.Array]:
    """Tensors as columns, by name.

    Args:
        tensors: As they came.
        binary: The binary part of the request, tensor after tensor.
        most: Most rows that are taken.
        shapes: Which are vectors and long texts.

    Raises:
        RequestRefused: One cannot be read, they differ in rows, or have too many.
    """
    if not tensors:
        raise RequestRefused("The request has no inputs.", code="invalid_input")
    columns: dict[str, pa.Array] = {}
    rows = None
    for tensor in tensors:
        if tensor.name in columns:
            raise RequestRefused("Two inputs have one name.", code="malformed_body")
        length = shapes.vectors.get(tensor.name)
        count = _rows(tensor, length)
        if rows is not None and count != rows:
            raise RequestRefused("The inputs differ in their number of rows.", code="invalid_input")
        if not 0 < count <= most:
            raise RequestRefused(
                f"The request has {count:,} rows; 1 to {most:,} are taken.",
                code="too_many_rows" if count > most else "invalid_input",
            )
        rows = count
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            columns[tensor.name] = _shaped(_listed(tensor, count * (length or 1)), length)
            refuse_growth(tensor.name, columns[tensor.name], shapes)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(binary):
            raise _wrong(tensor, "its binary_data_size is wrong")
        part, binary = binary[:size], binary[size:]
        columns[tensor.name] = _shaped(_packed(tensor, part, count * (length or 1)), length)
        refuse_growth(tensor.name, columns[tensor.name], shapes)
    return columns


def _shaped(values: pa.Array, length: int | None) -> pa.Array:
    return values if length is None else pa.FixedSizeListArray.from_arrays(values, length)


def _rows(tensor: Tensor, length: int | None) -> int:
    shape = tensor.shape
    if length is not None:
        if len(shape) != 2 or shape[1] != length:
            raise _wrong(tensor, f"its shape must be [rows, {length}]")
        return shape[0]
    if not shape or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise _wrong(tensor, "its shape must be [rows] or [rows, 1]")
    return shape[0]


def _listed(tensor: Tensor, count: int) -> pa.Array:
    values = tensor.data
    if not isinstance(values, list):
        raise _wrong(tensor, "it has no data")
    if len(tensor.shape) == 2 and values and all(isinstance(value, list) for value in values):
        values = [inner for value in values for inner in value]
    if len(values) != count:
        raise _wrong(tensor, f"it has {len(values)} values, not {count}")
    if tensor.datatype == TEXT:
        if not all(value is None or isinstance(value, str) for value in values):
            raise _wrong(tensor, "a value is no text")
        return pa.array(values, pa.string())
    kind = DATATYPES.get(tensor.datatype)
    expected = bool if tensor.datatype == "BOOL" else int | float
    good = kind is not None and all(
        value is None
        or (isinstance(value, expected) and isinstance(value, bool) is (expected is bool))
        for value in values
    )
    if not good:
        raise _wrong(tensor, "a value is not of its datatype")
    try:
        return pa.array(values, pa.from_numpy_dtype(kind))
    except (pa.ArrowException, OverflowError):
        raise _wrong(tensor, "a value is not of its datatype") from None


def _packed(tensor: Tensor, content: bytes, count: int) -> pa.Array:
    if tensor.datatype == TEXT:
        texts, place = [], 0
        try:
            for _ in range(count):
                (length,) = struct.unpack_from("<I", content, place)
                place += 4
                texts.append(content[place : place + length].decode("utf-8"))
                place += length
        except (struct.error, UnicodeDecodeError):
            raise _wrong(tensor, "its text cannot be read") from None
        if place != len(content):
            raise _wrong(tensor, "its binary data has another length")
        return pa.array(texts, pa.string())
    kind = DATATYPES.get(tensor.datatype)
    if kind is None or len(content) != count * np.dtype(kind).itemsize:
        raise _wrong(tensor, "its datatype or its length is wrong")
    return pa.array(np.frombuffer(content, dtype=kind))


def _wrong(tensor: Tensor, why: str) -> RequestRefused:
    return RequestRefused(
        f"The input '{tensor.name[:50]}' cannot be read: {why}.", code="invalid_input"
    )
