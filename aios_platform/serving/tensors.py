"""The Open Inference Protocol, version 2, over REST: existing clients work unchanged.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
and its extension for binary tensors,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import json
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from aios_platform import __version__
from aios_platform.errors import RequestRefused
from aios_platform.serving.intake import columnar_work
from aios_platform.serving.problems import MEDIA_TYPE, problem_of
from aios_platform.serving.replies import ABSTAINED, JSON, Reply
from aios_platform.serving.requests import read_headers
from aios_platform.serving.work import Work

if TYPE_CHECKING:
    from aios_platform.serving.deployment import Deployment
    from aios_platform.serving.gateway import Gateway

BINARY = b"application/octet-stream"
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
OF_KIND = {"string": TEXT, "timestamp": TEXT, "int": "INT64", "float": "FP32", "bool": "BOOL"}
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready))?")


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


@dataclass(frozen=True)
class V2:
    """The protocol's routes.

    Attributes:
        gateway: Answers.
    """

    gateway: "Gateway"

    async def answer(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Reply:
        """Answer a request under `/v2`."""
        try:
            return await self._route(method, path.rstrip("/"), headers, body)
        except Exception as error:
            told = problem_of(error)
            content = json.loads(told.body(""))
            return Reply(
                told.status, MEDIA_TYPE, json.dumps({"error": told.detail, **content}).encode()
            )

    async def _route(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Reply:
        if path in ("/v2", "/v2/health/live", "/v2/health/ready"):
            return self._server(path)
        found = _PATH.fullmatch(path)
        if found is None:
            raise RequestRefused("There is nothing here.", code="not_found")
        model, version, verb = found.groups()
        if method != ("POST" if verb == "infer" else "GET"):
            raise RequestRefused("The method is not allowed here.", code="method_not_allowed")
        if verb == "ready" and model not in self.gateway.deployments:
            return Reply(503, JSON, b'{"ready":false}')
        deployment = self.gateway.deployment(model)
        if version is not None and version != deployment.live.version:
            raise RequestRefused(
                f"Version {version[:50]} of {model} is not live.", code="unknown_version"
            )
        if verb == "infer":
            return await self._infer(model, deployment, headers, body)
        if verb == "ready":
            return _json({"ready": True})
        return _json(_metadata(deployment))

    def _server(self, path: str) -> Reply:
        if path == "/v2":
            return _json(
                {"name": "aios", "version": __version__, "extensions": ["binary_tensor_data"]}
            )
        ready = path.endswith("live") or self.gateway.readiness()[0]
        return Reply(200 if ready else 503, JSON, b"{}")

    async def _infer(
        self,
        model: str,
        deployment: "Deployment",
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> Reply:
        arrived = time.monotonic()
        request = read_headers(model, body, headers)
        self.gateway.access.admit(request.authorization, model)
        asked, binary = _read(headers, body)
        columns = _columns(asked.inputs, binary, deployment.serving.max_rows)
        name = asked.id if asked.id and len(asked.id) <= 200 else self.gateway.new_id()
        work = columnar_work(columns, request, deployment, name, arrived)
        answered = await self.gateway.answer(work, deployment)
        return _answer(deployment, answered, asked)


def _metadata(deployment: "Deployment") -> dict[str, Any]:
    return {
        "name": deployment.declaration.name,
        "versions": [deployment.live.version],
        "platform": "onnx_onnxruntime",
        "inputs": [
            {"name": entry.name, "datatype": OF_KIND[entry.kind], "shape": [-1]}
            for entry in deployment.contract.sent
        ],
        "outputs": [
            {"name": "probability", "datatype": "FP32", "shape": [-1]},
            {"name": "source", "datatype": TEXT, "shape": [-1]},
            {"name": "abstained", "datatype": "BOOL", "shape": [-1]},
        ],
    }


def _read(headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[InferRequest, bytes]:
    """The JSON part, and the binary part after it."""
    length = next((value for name, value in headers if name == HEADER_LENGTH), None)
    binary = b""
    if length is not None:
        if not length.isdigit() or int(length) > len(body):
            raise RequestRefused(
                "The header inference-header-content-length is wrong.", code="malformed_body"
            )
        body, binary = body[: int(length)], body[int(length) :]
    try:
        return _decode(body), binary
    except msgspec.ValidationError as error:
        raise RequestRefused(f"The request is none of V2: {error}.", code="invalid_input") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestRefused(
            f"The body is not JSON: {str(error)[:200]}.", code="malformed_body"
        ) from None


def _columns(tensors: Sequence[Tensor], binary: bytes, most: int) -> dict[str, pa.Array]:
    if not tensors:
        raise RequestRefused("The request has no inputs.", code="invalid_input")
    columns: dict[str, pa.Array] = {}
    rows = None
    for tensor in tensors:
        if tensor.name in columns:
            raise RequestRefused("Two inputs have one name.", code="malformed_body")
        count = _rows(tensor)
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
            columns[tensor.name] = _listed(tensor, count)
            continue
        if not isinstance(size, int) or not 0 <= size <= len(binary):
            raise _wrong(tensor, "its binary_data_size is wrong")
        part, binary = binary[:size], binary[size:]
        columns[tensor.name] = _packed(tensor, part, count)
    return columns


def _rows(tensor: Tensor) -> int:
    shape = tensor.shape
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
        raise _wrong(tensor, f"it has {len(values)} values for {count} rows")
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


def _answer(deployment: "Deployment", work: Work, asked: InferRequest) -> Reply:
    abstained = np.zeros(work.count, dtype=bool) if work.unsure is None else work.unsure
    safe = deployment.serving.safe_default or 0.0
    probabilities = np.where(abstained, np.float32(safe), work.probabilities).astype(np.float32)
    sources = [
        ABSTAINED if unsure else source
        for source, unsure in zip(work.sources, abstained, strict=True)
    ]
    values = {"probability": probabilities, "source": sources, "abstained": abstained}
    wanted = asked.outputs or [Output(name) for name in values]
    outputs, parts = [], []
    for output in wanted:
        value = values.get(output.name)
        if value is None:
            raise RequestRefused(f"There is no output '{output.name[:50]}'.", code="invalid_input")
        packed = output.parameters.get(
            "binary_data", asked.parameters.get("binary_data_output", False)
        )
        kind = {"probability": "FP32", "source": TEXT, "abstained": "BOOL"}[output.name]
        described: dict[str, Any] = {"name": output.name, "datatype": kind, "shape": [work.count]}
        if packed is True:
            parts.append(_bytes_of(value))
            described["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            described["data"] = value.tolist() if isinstance(value, np.ndarray) else value
        outputs.append(described)
    head = json.dumps(
        {
            "model_name": deployment.declaration.name,
            "model_version": (work.served_by or work.version).version,
            "id": work.request_id,
            "parameters": {
                "contract": work.contract.version,
                "features": deployment.live.service_digest,
            },
            "outputs": outputs,
        }
    ).encode()
    if not parts:
        return Reply(200, JSON, head)
    length = (HEADER_LENGTH, str(len(head)).encode())
    return Reply(200, BINARY, b"".join([head, *parts]), (length,))


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return value.tobytes()
    texts = [text.encode() for text in value]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _wrong(tensor: Tensor, why: str) -> RequestRefused:
    return RequestRefused(
        f"The input '{tensor.name[:50]}' cannot be read: {why}.", code="invalid_input"
    )


def _json(content: Any) -> Reply:
    return Reply(200, JSON, json.dumps(content).encode())
