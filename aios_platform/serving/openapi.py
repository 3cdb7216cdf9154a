"""The OpenAPI 3.1 document of what is served, derived from the declarations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aios_platform import __version__
from aios_platform.contracts.answers import AnswerSchema
from aios_platform.serving.problems import KINDS
from aios_platform.serving.replies import ARROW, NDJSON
from aios_platform.serving.streams import EVENTS

if TYPE_CHECKING:
    from aios_platform.serving.deployment import Deployment

PROBLEM = "application/problem+json"
PREDICT_CODES = (400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 503, 504)
HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Idempotency-Key": (
        "Same key and body: the same answer and one record.",
        {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    ),
    "Aios-Contract": ("Version of the contract that the body is in.", {"type": "integer"}),
    "Aios-Deadline-Ms": (
        "The answer is of no use after so many milliseconds.",
        {"type": "number", "exclusiveMinimum": 0},
    ),
    "Aios-Latency-Ms": (
        "Only tiers that take no longer.", {"type": "number", "exclusiveMinimum": 0},
    ),
    "Aios-Cost": ("Only tiers that cost no more.", {"type": "number", "exclusiveMinimum": 0}),
    "Aios-Privacy": (
        "How confidential the request is.",
        {"type": "string", "enum": ["public", "internal", "restricted"]},
    ),
    "X-Request-Id": (
        "The caller's name of the request.",
        {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
    ),
}  # fmt: skip


def document(deployments: Mapping[str, "Deployment"]) -> dict[str, Any]:
    """The document.

    Args:
        deployments: What serves now, by model.
    """
    paths: dict[str, Any] = dict(_platform_paths())
    schemas: dict[str, Any] = {"Problem": _problem()}
    for name, deployment in sorted(deployments.items()):
        request = deployment.contract.schema()
        parts = request.pop("$defs")
        for part, schema in parts.items():
            schemas[f"{name}.{part}"] = _renamed(schema, name)
        row = schemas[f"{name}.Row"]
        # Either one row or several: what the decoder checks beyond the types.
        body = {
            "oneOf": [
                _object({"instance": {"$ref": f"#/components/schemas/{name}.Row"}}),
                _object(
                    {
                        "instances": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": deployment.serving.max_rows,
                            "items": {"$ref": f"#/components/schemas/{name}.Row"},
                        }
                    }
                ),
            ]
        }
        row["additionalProperties"] = False
        schemas[f"{name}.PredictRequest"] = body
        schemas[f"{name}.Prediction"] = _prediction(deployment)
        schemas[f"{name}.PredictReply"] = _reply(name)
        paths[f"/v1/models/{name}:predict"] = {"post": _predict(name, deployment)}
        paths[f"/v1/models/{name}:stream"] = {"post": _stream(name)}
        paths[f"/v1/models/{name}"] = {
            "get": {
                "operationId": f"{name}.describe",
                "summary": f"What serves {name} now.",
                "responses": {"200": _content("application/json", {"type": "object"})},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AIOS gateway",
            "version": __version__,
            "description": "Real-time inference for declared models.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _platform_paths() -> Mapping[str, Any]:
    def get(name: str, summary: str, kind: str = "application/json", *more: str) -> Any:
        responses = {"200": _content(kind, {"type": "object"} if "json" in kind else {})}
        responses |= {code: {"description": "Not now."} for code in more}
        return {"get": {"operationId": name, "summary": summary, "responses": responses}}

    return {
        "/healthz": get("health", "Whether the process lives."),
        "/readyz": get("ready", "Whether requests can be answered.", "application/json", "503"),
        "/metrics": get("metrics", "Metrics for Prometheus.", "text/plain"),
        "/v1/models": get("models", "The models that are served."),
        "/openapi.json": get("openapi", "This document."),
        "/docs": get("docs", "This document as a page.", "text/html"),
        "/v2": get("v2", "Metadata of the server (Open Inference Protocol)."),
        "/v2/health/live": get("v2.live", "Whether the process lives."),
        "/v2/health/ready": get("v2.ready", "Whether it serves.", "application/json", "503"),
    }


def _predict(name: str, deployment: "Deployment") -> dict[str, Any]:
    ref = {"$ref": f"#/components/schemas/{name}.PredictRequest"}
    reply = {"$ref": f"#/components/schemas/{name}.PredictReply"}
    arrow = {"type": "string", "format": "binary"}
    return {
        "operationId": f"{name}.predict",
        "summary": f"Predict with {name}.",
        "description": deployment.declaration.description,
        "parameters": [
            {"name": header, "in": "header", "required": False, "description": text, "schema": kind}
            for header, (text, kind) in HEADERS.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ref}, ARROW.decode(): {"schema": arrow}},
        },
        "responses": {
            "200": {
                "description": "The predictions.",
                "content": {
                    "application/json": {"schema": reply},
                    ARROW.decode(): {"schema": arrow},
                },
            },
            **_problems(),
        },
    }


def _stream(name: str) -> dict[str, Any]:
    ref = {"$ref": f"#/components/schemas/{name}.PredictRequest"}
    text = {"schema": {"type": "string"}}
    return {
        "operationId": f"{name}.stream",
        "summary": f"Predict many rows with {name}, answered as they are ready.",
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref}}},
        "responses": {
            "200": {
                "description": "A line (or event) per row, and one at the end.",
                "content": {NDJSON.decode(): text, EVENTS.decode(): text},
            },
            **_problems(),
        },
    }


def _problems() -> dict[str, Any]:
    return {
        str(status): {
            "description": "; ".join(
                sorted(f"{kind.title} ({code})" for code, kind in KINDS.items()
                       if kind.status == status)
            ),
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in PREDICT_CODES
    }  # fmt: skip


def _problem() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "RFC 9457 problem details.",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": {"type": "string", "format": "uri"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string", "enum": sorted(KINDS)},
            "request_id": {"type": "string"},
        },
    }


def _reply(name: str) -> dict[str, Any]:
    one = {"$ref": f"#/components/schemas/{name}.Prediction"}
    return {
        "type": "object",
        "required": ["model", "version", "contract", "features", "request_id"],
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string", "description": "The version that answered."},
            "contract": {"type": "integer"},
            "features": {"type": "string", "description": "Digest of the feature service."},
            "request_id": {"type": "string"},
            "prediction": one,
            "predictions": {"type": "array", "items": one},
        },
    }


def _answered(answers: AnswerSchema) -> dict[str, Any]:
    """The fields of a row's answer itself."""
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    if answers.task == "binary_classification":
        return {"probability": probability}
    if answers.classes:
        return {
            "predicted": {"type": "string", "enum": list(answers.classes)},
            "probability": probability,
            "probabilities": _object(dict.fromkeys(answers.classes, probability)),
        }
    number = {"type": "number"}
    if answers.flat:
        return {"value": number}
    levels = [f"{level:g}" for level in answers.quantiles]
    return {"value": number, "quantiles": _object(dict.fromkeys(levels, number))}


def _prediction(deployment: "Deployment") -> dict[str, Any]:
    sources = [tier.name for tier in deployment.serving.tiers]
    answered = _answered(deployment.declaration.answers)
    return {
        "type": "object",
        "required": [*answered, "source"],
        "properties": {
            **answered,
            "source": {
                "type": "string",
                "description": "Who answered.",
                "enum": [*sources, "cache", "previous", "simple", "default", "abstained"],
            },
            "labels": {
                "type": "array",
                "items": {"type": "boolean"},
                "description": "Labels that are plausible at the declared coverage.",
            },
            "fallback": {"const": True},
            "cached": {"const": True},
            "abstained": {"const": True},
            "feature_age_seconds": {"type": "number", "minimum": 0},
            "version": {"type": "string"},
            deployment.declaration.source.row_id: {"type": "string"},
        },
    }


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": "So it is.", "content": {kind: {"schema": schema}}}


def _renamed(schema: Any, model: str) -> Any:
    if isinstance(schema, dict):
        return {
            key: f"#/components/schemas/{model}.{value.removeprefix('#/$defs/')}"
            if key == "$ref"
            else _renamed(value, model)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_renamed(item, model) for item in schema]
    return schema
