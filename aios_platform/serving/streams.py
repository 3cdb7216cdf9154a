"""Long requests answered part by part, as the parts are ready: NDJSON or server-sent events."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from aios_platform.errors import RequestRefused
from aios_platform.serving.intake import part_of, work_of
from aios_platform.serving.problems import told
from aios_platform.serving.replies import NDJSON
from aios_platform.serving.requests import Request

if TYPE_CHECKING:
    from aios_platform.serving.gateway import Gateway

__all__ = ["EVENTS", "NDJSON", "stream"]

EVENTS = b"text/event-stream"
PART_ROWS = 256

Send = Callable[[dict[str, Any]], Awaitable[None]]


async def stream(gateway: "Gateway", request: Request, kind: bytes, send: Send) -> None:
    """Answer the rows of a request in parts, in their order.

    Each line (or event) is the answer of a row, with its place; the last one says that all came,
    or what went wrong. Each part has the request's deadline to itself, and is answered by what
    serves then.

    Args:
        gateway: Answers.
        request: The request.
        kind: `NDJSON` or `EVENTS`.
        send: ASGI's.

    Raises:
        AiosError: The request is refused; nothing was sent.
    """
    gateway.access.admit(request.authorization, request.model)
    if request.idempotency_key is not None:
        raise RequestRefused(
            "An Idempotency-Key is of no use here: a stream is not kept.",
            remedy="Ask for :predict, or send no key.",
        )
    deployment = gateway.deployment(request.model)
    request_id = request.request_id or gateway.new_id()
    whole = work_of(request, deployment, request_id, time.monotonic())
    headers = [(b"content-type", kind), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    first = 0
    end: dict[str, Any] = {"done": True}
    try:
        while first < whole.count:
            if deployment is not (now := gateway.deployment(request.model)):
                deployment = now
                whole = work_of(request, deployment, request_id, time.monotonic())
            part = part_of(whole, first, PART_ROWS)
            answered = await gateway.answer(part, deployment)
            by = answered.served_by or answered.version
            lines = [
                {"place": place, "version": by.version, **row}
                for place, row in zip(part.places, deployment.replies.rows(answered), strict=True)
            ]
            first += part.count
            await _write(send, kind, lines, "prediction")
        end["rows"] = first
    except Exception as error:
        problem = told(error, request_id)
        end = {"done": False, "rows": first, "code": problem.code, "detail": problem.detail}
    end["request_id"] = request_id
    await _write(send, kind, [end], "end")
    await send({"type": "http.response.body", "body": b""})


async def _write(send: Send, kind: bytes, lines: list[dict[str, Any]], event: str) -> None:
    if kind == EVENTS:
        body = "".join(f"event: {event}\ndata: {json.dumps(line)}\n\n" for line in lines)
    else:
        body = "".join(f"{json.dumps(line)}\n" for line in lines)
    await send({"type": "http.response.body", "body": body.encode(), "more_body": True})
