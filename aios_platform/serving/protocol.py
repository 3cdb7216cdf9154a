"""uvicorn's HTTP protocol with a short way for predictions.

A prediction with a body of known length goes from the parser to the gateway and back, without the
ASGI scope, task and messages in between, which cost more than the model. Everything else (other
routes, chunked bodies, pipelined requests) takes uvicorn's own way to the ASGI application, which
answers predictions all the same.
"""

import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from aios_platform.errors import RequestRefused
from aios_platform.serving.connection import BoundedConnection
from aios_platform.serving.gateway import Gateway
from aios_platform.serving.problems import problem_of
from aios_platform.serving.replies import Reply, problem_reply
from aios_platform.serving.requests import read_headers

PREFIX, SUFFIX = b"/v1/models/", b":predict"
POST = b"POST"


class Exchange:
    """One prediction on a connection; to the base class, a cycle like any other."""

    __slots__ = (
        "body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete",
    )  # fmt: skip

    def __init__(self, keep_alive: bool) -> None:
        self.body: bytes | bytearray = b""
        self.more_body = True
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NO_EVENT


class _NoEvent:
    def set(self) -> None:
        """Nobody waits."""


_NO_EVENT = _NoEvent()


class GatewayProtocol(BoundedConnection):
    """One connection.

    Attributes:
        gateway: Answers predictions; set once, before the server starts.
        others_seconds: For how long after the end was asked for connections are kept open. Whom one
            process turns away comes again at once, and would wait for another that has not closed
            the port they share yet, and is reset when it does.
    """

    gateway: Gateway
    others_seconds = 0.0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._exchange: Exchange | None = None

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_headers = True
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Take the short way, if this is a prediction and nothing else is under way."""
        if not self.admits():
            return
        url = self.url
        if (
            self.free
            and url.startswith(PREFIX)
            and url.endswith(SUFFIX)
            and self.length is not None
            and not self.expect_100_continue
            and self.parser.get_method() == POST
            and self.parser.get_http_version() == "1.1"
            and b"%" not in url
            and b"?" not in url
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
        if self.gateway.draining or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of the body came."""
        exchange = self._exchange
        if exchange is None:
            if self.cycle is not None and not self._refused:
                super().on_body(body)
            return
        if not exchange.body:
            exchange.body = body
        elif isinstance(exchange.body, bytearray):
            exchange.body += body
        else:
            exchange.body = bytearray(exchange.body + body)

    def on_message_complete(self) -> None:
        """The request is complete: ask the gateway."""
        exchange = self._exchange
        if exchange is None:
            super().on_message_complete()
            return
        self.ended()
        self._exchange = None
        try:
            model = self.url[len(PREFIX) : -len(SUFFIX)].decode("ascii")
            request = read_headers(model, bytes(exchange.body), self.headers)
        except (RequestRefused, UnicodeDecodeError) as error:
            self._send(exchange, problem_reply(problem_of(_refused(error)), ""))
            return
        exchange.body = b""
        self.gateway.predict(request, lambda reply: self._send(exchange, reply))

    def shutdown(self) -> None:
        """Hang up after the next answer, once nobody else takes connections either."""
        if self.others_seconds:
            self.loop.call_later(self.others_seconds, self._drain)
        else:
            self._drain()

    def _drain(self) -> None:
        self.gateway.draining = True
        super().shutdown()

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
        elif not self._unread_since:
            self.flow.resume_reading()


def _refused(error: Exception) -> Exception:
    if isinstance(error, UnicodeDecodeError):
        return RequestRefused("No such model is served.", code="unknown_model")
    return error
