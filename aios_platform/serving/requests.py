"""A request as it came over whatever protocol, and what it becomes: work for a deployment."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from aios_platform.contracts.serving import Privacy, Serving
from aios_platform.errors import RequestRefused
from aios_platform.serving.contract import InputContract

LONGEST_NAME = 200
JSON_TYPES = (b"", b"application/json")
ARROW_TYPE = b"application/vnd.apache.arrow.stream"
# Ordered by confidentiality.
PRIVACY = list(Privacy)


class Request(NamedTuple):
    """What a caller asks of a model.

    Attributes:
        model: Name of the model.
        body: As it came.
        content_type: In lower case, without parameters.
        authorization: The header of that name.
        request_id: The caller's own name of the request.
        idempotency_key: Same key and body, same answer.
        contract: Version of the contract that it is in; None: the newest.
        deadline_ms: The caller's own deadline; the declared one is the longest.
        latency_ms: Time that a tier may take.
        cost: Most that a tier may cost.
        privacy: How confidential the request is.
        traceparent: W3C trace context.
    """

    model: str
    body: bytes
    content_type: bytes = b""
    authorization: bytes | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    contract: int | None = None
    deadline_ms: float | None = None
    latency_ms: float | None = None
    cost: float | None = None
    privacy: Privacy | None = None
    traceparent: bytes | None = None


class RequestIds:
    """Names of requests that sort by time, as UUID version 7 does (RFC 9562, 5.7)."""

    def __init__(self) -> None:
        self._mine = os.urandom(6).hex()
        self._count = 0

    def new(self) -> str:
        """A name that nobody else has: milliseconds, this process, a count."""
        self._count += 1
        return f"{time.time_ns() // 1_000_000:012x}{self._mine}{self._count & 0xFFFFFFFF:08x}"


def read_headers(model: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> Request:
    """A request from HTTP headers, whose names are in lower case.

    Raises:
        RequestRefused: A header of ours cannot be read.
    """
    found: dict[str, Any] = {}
    for name, value in headers:
        reading = _READ.get(name)
        if reading is None:
            if name == b"content-encoding" and value.lower() != b"identity":
                raise RequestRefused(
                    "Compressed bodies are not accepted.",
                    code="unsupported_media_type",
                    remedy="Send it as it is.",
                )
            continue
        field, read = reading
        if field in found:
            raise RequestRefused(f"The header {name.decode()} comes twice.")
        try:
            found[field] = read(value)
        except ValueError:
            raise RequestRefused(
                f"The header {name.decode()} cannot be read.", remedy="docs/serving.md has them."
            ) from None
    return Request(model, body, **found)


def deadline_of(request: Request, serving: Serving, arrived: float) -> float:
    """When an answer is of no use any more, monotonic seconds."""
    allowed = serving.deadline_ms
    if request.deadline_ms is not None:
        allowed = min(allowed, request.deadline_ms)
    return arrived + allowed / 1000


def tiers_of(
    request: Request, serving: Serving, present: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Places of the tiers that may answer; None: all that are there.

    Raises:
        RequestRefused: None may.
    """
    if request.latency_ms is None and request.cost is None and request.privacy is None:
        return None
    found = []
    for place in present:
        tier = serving.tiers[place]
        slow = request.latency_ms is not None and (tier.latency_ms or 0.0) > request.latency_ms
        dear = request.cost is not None and tier.cost > request.cost
        open_ = request.privacy is not None and (
            PRIVACY.index(request.privacy) > PRIVACY.index(tier.privacy)
        )
        if not (slow or dear or open_):
            found.append(place)
    if not found:
        raise RequestRefused(
            "No tier of the model is fast, cheap and confidential enough for the request.",
            code="invalid_input",
            remedy="Ask for less: aios-latency-ms, aios-cost, aios-privacy.",
        )
    return None if tuple(found) == present else tuple(found)


def contract_of(
    request: Request, contracts: Mapping[int, InputContract], newest: int
) -> InputContract:
    """The contract that a request is in.

    Raises:
        RequestRefused: It is not declared.
    """
    wanted = newest if request.contract is None else request.contract
    found = contracts.get(wanted)
    if found is None:
        declared = ", ".join(str(version) for version in sorted(contracts))
        raise RequestRefused(
            f"Contract {wanted} of {request.model} is not declared; {declared} are.",
            code="unknown_contract",
        )
    return found


def _as_is(value: bytes) -> bytes:
    return value


def _kind(value: bytes) -> bytes:
    if value in JSON_TYPES:
        return value
    return value.partition(b";")[0].strip().lower()


def _text(value: bytes) -> str:
    text = value.decode("ascii")
    if not (0 < len(text) <= LONGEST_NAME and text.isprintable()):
        raise ValueError(text)
    return text


def _positive(value: bytes) -> float:
    number = float(value)
    if not (np.isfinite(number) and number > 0):
        raise ValueError(value)
    return number


def _whole(value: bytes) -> int:
    return int(value)


def _privacy(value: bytes) -> Privacy:
    return Privacy(value.decode("ascii"))


_READ: dict[bytes, tuple[str, Callable[[bytes], Any]]] = {
    b"content-type": ("content_type", _kind),
    b"authorization": ("authorization", _as_is),
    b"x-request-id": ("request_id", _text),
    b"idempotency-key": ("idempotency_key", _text),
    b"aios-contract": ("contract", _whole),
    b"aios-deadline-ms": ("deadline_ms", _positive),
    b"aios-latency-ms": ("latency_ms", _positive),
    b"aios-cost": ("cost", _positive),
    b"aios-privacy": ("privacy", _privacy),
    b"traceparent": ("traceparent", _as_is),
}
