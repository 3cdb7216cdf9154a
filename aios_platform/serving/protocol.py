"""uvicorn's HTTP protocol with a short way for predictions, and deadlines for slow clients.

A prediction with a body of known length goes from the parser to the gateway and back, without the
ASGI scope, task and messages in between, which cost more than the model. Everything else (other
routes, chunked bodies, pipelined requests) takes uvicorn's own way to the ASGI application, which
answers predictions all the same.
"""

import asyncio
import time
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from aios_platform.errors import RequestRefused
from aios_platform.serving.gateway import Gateway
from aios_platform.serving.problems import Problem, problem, problem_of
from aios_platform.serving.replies import Reply, problem_reply
from aios_platform.serving.requests import read_headers

PREFIX, SUFFIX = b"/v1/models/", b":predict"
POST = b"POST"
# What a client may take for its headers, and for its body.
HEADER_SECONDS = 10.0
BODY_SECONDS = 30.0
IDLE_SECONDS = 75.0
SWEEP_SECONDS = 1.0
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024


class Exchange:
    """One prediction on a connection; to the base class, a cycle like any other."""

    __slots__ = (
        "body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete",
    )  # fmt: skip

    def __init__(self, keep_alive: bool) -> None:
        self.body = b""
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NO_EVENT


class _NoEvent:
    def set(self) -> None:
        """Nobody waits."""


_NO_EVENT = _NoEvent()


class GatewayProtocol(HttpToolsProtocol):
    """One connection.

    Attributes:
        gateway: Answers predictions; set once, before the server starts.
        most_bytes: Largest body.
        most_connections: Further ones are closed at once.
    """

    gateway: Gateway
    most_bytes = 16 << 20
    most_connections = 2000
    open: ClassVar[set["GatewayProtocol"]] = set()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._exchange: Exchange | None = None
        self._since = 0.0
        """When the client began to send what is not complete yet; 0: nothing is awaited."""
        self._idle_since = 0.0
        self._limit = HEADER_SECONDS
        self._header_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, if there is room."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._since = time.monotonic()
        self._limit = HEADER_SECONDS
        self.open.add(self)
        if len(self.open) > self.most_connections:
            self._refuse_now(problem("overloaded", "Too many connections.", retry_after=1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection; what it asked is answered to nobody."""
        self.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._since == 0.0 and (self.cycle is None or self.cycle.response_complete):
            self._since = time.monotonic()
            self._limit = HEADER_SECONDS
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._header_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            self._refuse_now(problem("body_too_large", "The headers are too large."))
            return
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take the short way, if this is a prediction and nothing else is under way."""
        if self.transport.is_closing():
            return
        self._limit = BODY_SECONDS
        length = self._length()
        if length is not None and length > self.most_bytes:
            self._refuse_now(
                problem("body_too_large", f"The body has more than {self.most_bytes:,} bytes.")
            )
            return
        url = self.url
        free = self.cycle is None or self.cycle.response_complete
        if (
            free
            and length is not None
            and url.startswith(PREFIX)
            and url.endswith(SUFFIX)
            and not self.expect_100_continue
            and self.parser.get_method() == POST
            and self.parser.get_http_version() == "1.1"
            and b"%" not in url
        ):
            self._exchange = self.cycle = Exchange(self.parser.should_keep_alive())  # type: ignore[assignment]
            return
        self._exchange = None
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,  # type: ignore[typeddict-item]
            "root_path": self.root_path,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }  # type: ignore[typeddict-item]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body came."""
        exchange = self._exchange
        if exchange is None:
            if self.cycle is not None:
                super().on_body(body)
            return
        exchange.body = exchange.body + body if exchange.body else body

    def on_message_complete(self) -> None:
        """The request is complete: ask the gateway."""
        self._since = 0.0
        exchange = self._exchange
        if exchange is None:
            if self.cycle is not None and not self.transport.is_closing():
                super().on_message_complete()
            return
        self._exchange = None
        try:
            model = self.url[len(PREFIX) : -len(SUFFIX)].decode("ascii")
            request = read_headers(model, exchange.body, self.headers)
        except (RequestRefused, UnicodeDecodeError) as error:
            self._send(exchange, problem_reply(problem_of(_refused(error)), ""))
            return
        exchange.body = b""
        self.gateway.predict(request, lambda reply: self._send(exchange, reply))

    def _send(self, exchange: Exchange, reply: Reply) -> None:
        if exchange.disconnected or exchange.response_complete:
            return
        parts = [
            STATUS_LINE[reply.status],
            b"content-type: ",
            reply.content_type,
            b"\r\ncontent-length: %d\r\n" % len(reply.body),
        ]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            parts += [name, b": ", value, b"\r\n"]
        keep = exchange.keep_alive and not self.gateway.draining
        parts.append(b"\r\n" if keep else b"connection: close\r\n\r\n")
        parts.append(reply.body)
        self.transport.write(b"".join(parts))
        exchange.response_complete = True
        self.server_state.total_requests += 1
        if not keep:
            self.transport.close()
            return
        self._idle_since = time.monotonic()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        else:
            self.flow.resume_reading()

    def _refuse_now(self, refusal: Problem) -> None:
        """Answer before the request is complete, and hang up."""
        if self.transport.is_closing():
            return
        reply = problem_reply(refusal, "")
        self.transport.write(
            b"".join(
                [
                    STATUS_LINE[reply.status],
                    b"content-type: ",
                    reply.content_type,
                    b"\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(reply.body),
                    reply.body,
                ]
            )
        )
        self.transport.close()

    def _length(self) -> int | None:
        for name, value in self.headers:
            if name == b"content-length":
                return int(value) if value.isdigit() else None
        return None

    def overdue(self, now: float) -> bool:
        """Whether the client takes too long, or has nothing to say any more."""
        if self._since:
            return now - self._since > self._limit
        busy = self.cycle is not None and not self.cycle.response_complete
        return not busy and now - self._idle_since > IDLE_SECONDS and self._idle_since > 0

    def hang_up(self) -> None:
        """Close a connection that is overdue."""
        if self._since:
            self._refuse_now(problem("timeout", "The request came too slowly."))
        else:
            self.transport.close()


async def sweep() -> None:
    """Close overdue connections, until cancelled: one look a second costs no timer per request."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = time.monotonic()
        for connection in [c for c in GatewayProtocol.open if c.overdue(now)]:
            connection.hang_up()


def _refused(error: Exception) -> Exception:
    if isinstance(error, UnicodeDecodeError):
        return RequestRefused("No such model is served.", code="unknown_model")
    return error
