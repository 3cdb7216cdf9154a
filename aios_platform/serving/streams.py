"""Long requests answered part by part, as the parts are ready: NDJSON or server-sent events."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aios_platform.errors import AiosError
from aios_platform.serving.intake import parts_of, work_of
from aios_platform.serving.problems import problem_of
from aios_platform.serving.replies import NDJSON
from aios_platform.serving.requests import Request
from aios_platform.serving.work import Work

if TYPE_CHECKING:
    from aios_platform.serving.gateway import Gateway

__all__ = ["EVENTS", "NDJSON", "stream"]

EVENTS = b"text/event-stream"
PART_ROWS = 256

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def stream(gateway: "Gateway", request: Request, kind: bytes, send: Send) -> None:
    """Answer the rows of a request in parts, in their order.

    Each line (or event) is the answer of a row, with its place; the last one says that all came,
    or what went wrong. Each part has the request's deadline to itself.

    Args:
        gateway: Answers.
        request: The request.
        kind: `NDJSON` or `EVENTS`.
        send: ASGI's.

    Raises:
        AiosError: The request is refused; nothing was sent.
    """
    gateway.access.admit(request.authorization, request.model)
    deployment = gateway.deployment(request.model)
    request_id = request.request_id or gateway.new_id()
    whole = work_of(request, deployment, request_id, time.monotonic())
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    first = 0
    end: dict[str, Any] = {"done": True}
    try:
        for part in parts_of(whole, PART_ROWS):
            answered = await gateway.answer(_renewed(part), deployment)
            by = answered.served_by or answered.version
            lines = [
                {"place": first + place, "version": by.version, **row}
                for place, row in enumerate(deployment.replies.rows(answered))
            ]
            first += part.count
            await _write(send, kind, lines, "prediction")
        end["rows"] = first
    except AiosError as error:
        told = problem_of(error)
        end = {"done": False, "rows": first, "code": told.code, "detail": told.detail}
    end["request_id"] = request_id
    await _write(send, kind, [end], "end")
    await send({"type": "http.response.body", "body": b""})


def _renewed(part: Work) -> Work:
    allowed = part.deadline - part.arrived
    part.arrived = time.monotonic()
    part.deadline = part.arrived + allowed
    return part


async def _write(send: Send, kind: bytes, lines: list[dict[str, Any]], event: str) -> None:
    if kind == EVENTS:
        body = "".join(f"event: {event}\ndata: {json.dumps(line)}\n\n" for line in lines)
    else:
        body = "".join(f"{json.dumps(line)}\n" for line in lines)
    await send({"type": "http.response.body", "body": body.encode(), "more_body": True})
