"""The Open Inference Protocol, version 2, over REST: existing clients work unchanged.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
and its extension for binary tensors,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import json
import re
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aios_platform import __version__
from aios_platform.errors import RequestRefused
from aios_platform.serving.intake import columnar_work
from aios_platform.serving.problems import told
from aios_platform.serving.replies import ABSTAINED, JSON, Reply, columns_by_name, problem_reply
from aios_platform.serving.requests import read_headers
from aios_platform.serving.tensor_inputs import (
    HEADER_LENGTH,
    TEXT,
    InferRequest,
    Output,
    columns_of,
    outputs_of,
    read_tensors,
)
from aios_platform.serving.work import Work

if TYPE_CHECKING:
    from aios_platform.serving.deployment import Deployment
    from aios_platform.serving.gateway import Gateway

BINARY = b"application/octet-stream"
OF_KIND = {
    "string": TEXT,
    "text": TEXT,
    "timestamp": TEXT,
    "int": "INT64",
    "float": "FP32",
    "vector": "FP32",
    "bool": "BOOL",
}
_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(infer|ready))?")


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
            problem = told(error, "")
            content = {"error": problem.detail, **json.loads(problem.body(""))}
            return problem_reply(problem, "")._replace(body=json.dumps(content).encode())

    async def _route(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Reply:
        if path in ("/v2", "/v2/health/live", "/v2/health/ready"):
            if method not in ("GET", "HEAD"):
                raise RequestRefused("The method is not allowed here.", code="method_not_allowed")
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
        if request.idempotency_key is not None:
            raise RequestRefused(
                "An Idempotency-Key is of no use here: answers of this protocol are not kept.",
                remedy="Ask for /v1/models/{model}:predict, or send no key.",
            )
        asked, binary = read_tensors(headers, body, outputs_of(deployment.declaration.answers))
        columns = columns_of(asked.inputs, binary, deployment.serving.max_rows, deployment.shapes)
        name = asked.id or self.gateway.new_id()
        work = columnar_work(columns, request, deployment, name, arrived)
        answered = await self.gateway.answer(work, deployment)
        return _answer(deployment, answered, asked)


def _metadata(deployment: "Deployment") -> dict[str, Any]:
    return {
        "name": deployment.declaration.name,
        "versions": [deployment.live.version],
        "platform": "onnx_onnxruntime",
        "inputs": [
            {
                "name": entry.name,
                "datatype": OF_KIND[entry.kind],
                "shape": [-1] if entry.length is None else [-1, entry.length],
            }
            for entry in deployment.contract.sent
        ],
        "outputs": [
            {"name": name, "datatype": kind, "shape": [-1]}
            for name, kind in outputs_of(deployment.declaration.answers).items()
        ],
    }


def _answer(deployment: "Deployment", work: Work, asked: InferRequest) -> Reply:
    abstained = np.zeros(work.count, dtype=bool) if work.unsure is None else work.unsure
    answers = deployment.declaration.answers
    kinds = outputs_of(answers)
    scores = work.probabilities
    if abstained.any():
        scores = np.where(abstained, np.float32(deployment.serving.safe_default or 0.0), scores)
    sources = [
        ABSTAINED if unsure else source
        for source, unsure in zip(work.sources, abstained, strict=True)
    ]
    by = (work.served_by or work.version).version
    values: dict[str, Any] = {
        **columns_by_name(scores, answers),
        "source": sources,
        "abstained": abstained,
        "version": list(work.versions or [by] * work.count),
    }
    wanted = asked.outputs or [Output(name) for name in values]
    outputs, parts = [], []
    for output in wanted:
        value = values[output.name]
        packed = output.parameters.get(
            "binary_data", asked.parameters.get("binary_data_output", False)
        )
        kind = kinds[output.name]
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
            "model_version": by,
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


def _json(content: Any) -> Reply:
    return Reply(200, JSON, json.dumps(content).encode())
