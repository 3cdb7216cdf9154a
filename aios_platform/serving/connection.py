"""A client's connection with bounds: how slow, how large, how many, and how it ends.

uvicorn's own protocol has none of them: it waits for ever for headers and bodies, takes a header of
any length, and hangs up on what is on its way when it is told to stop.
"""

import asyncio
import time
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from aios_platform.serving.problems import Problem, problem
from aios_platform.serving.replies import problem_reply

# What a client may take for its headers, for the whole request, and to read what it is sent.
HEADER_SECONDS = 10.0
BODY_SECONDS = 30.0
READ_SECONDS = 30.0
IDLE_SECONDS = 75.0
SWEEP_SECONDS = 1.0
# For how long a refused client may go on sending, so that it gets to read why.
LINGER_SECONDS = 2.0
# For how long requests are taken that were on their way when the gateway was told to stop.
LATE_SECONDS = 0.5
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
# A body in tiny chunks takes more bytes than it has.
CHUNKING = 4


class BoundedConnection(HttpToolsProtocol):
    """One connection.

    Attributes:
        most_bytes: Largest body.
        most_connections: Further ones are closed at once.
    """

    most_bytes = 16 << 20
    most_connections = 2000
    open: ClassVar[set["BoundedConnection"]] = set()

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._since = 0.0
        """When the client began to send what is not complete yet; 0: nothing is awaited."""
        self._idle_since = 0.0
        self._unread_since = 0.0
        """Since when the client does not read what it is sent; 0: it does."""
        self._limit = HEADER_SECONDS
        self._in_headers = True
        self._bytes = 0
        """Bytes of the request that is being read."""
        self._refused = False
        self.length: int | None = 0
        """Length of the body; None: it comes in chunks."""

    @property
    def free(self) -> bool:
        """Whether every request that came was answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, if there is room."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._since = time.monotonic()
        self.open.add(self)
        if len(self.open) > self.most_connections:
            self.refuse(problem("overloaded", "Too many connections.", retry_after=1), linger=0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection; what it asked is answered to nobody."""
        self.open.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came."""
        if self._refused:
            return
        if self._since == 0.0 and self.free:
            self._since = time.monotonic()
            self._limit = HEADER_SECONDS
        self._bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._bytes > MAX_HEADER_BYTES:
            self.refuse(problem("headers_too_large", "The headers are too large."))
        elif self._bytes > CHUNKING * self.most_bytes + MAX_HEADER_BYTES:
            self.refuse(self.too_large)

    @property
    def too_large(self) -> Problem:
        """What is told to whom sends too much."""
        return problem("body_too_large", f"The body has more than {self.most_bytes:,} bytes.")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_headers = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header came; what comes behind a body in chunks is none."""
        if not self._in_headers:
            return
        # As the base class does; calling it for every header of every request is dearer.
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def admits(self) -> bool:
        """Whether to read the body of a request whose headers came; refuses it otherwise."""
        if self._refused or self.transport.is_closing():
            return False
        length = self.length = self._declared_length()
        if len(self.headers) > MAX_HEADERS:
            self.refuse(problem("headers_too_large", "The headers are too many."))
        elif self._bytes > MAX_HEADER_BYTES and self._header_bytes() > MAX_HEADER_BYTES:
            self.refuse(problem("headers_too_large", "The headers are too large."))
        elif length is not None and length > self.most_bytes and self.free:
            self.refuse(self.too_large)
        elif length != 0 and self.parser.should_upgrade():
            # The parser takes the body for the other protocol's.
            self.refuse(
                problem("invalid_request", "The protocol is not changed: send HTTP/1.1 only.")
            )
        self._in_headers = False
        self._limit = BODY_SECONDS
        return not self._refused

    def _header_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _declared_length(self) -> int | None:
        for name, value in self.headers:
            if name == b"content-length":
                return int(value)
            if name == b"transfer-encoding":
                return None
        return 0

    def on_message_complete(self) -> None:
        """The request is complete."""
        self.ended()
        if not self._refused and self.cycle is not None and not self.transport.is_closing():
            super().on_message_complete()

    def ended(self) -> None:
        """Wait for nothing any more: the next byte begins a request."""
        self._since = 0.0
        self._bytes = 0
        self._in_headers = True

    def send_400_response(self, msg: str) -> None:
        """Tell a client that it does not speak HTTP."""
        self.refuse(problem("invalid_request", msg))

    def refuse(self, refusal: Problem, linger: float = LINGER_SECONDS) -> None:
        """Answer before the request is complete, and hang up."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._since = 0.0
        if self._is_ours():
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
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not linger or not self.transport.can_write_eof():
            self.transport.close()
            return
        # Closed at once, what the client still sends would reset the connection before it reads.
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(linger, self.transport.close)

    def _is_ours(self) -> bool:
        """Whether what is written now answers the request that is being read."""
        if self._in_headers or self.cycle is None:
            return self.free
        return not self.pipeline and not getattr(self.cycle, "response_started", False)

    def pause_writing(self) -> None:
        """The client does not read: no more is taken from it."""
        self._unread_since = time.monotonic()
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._unread_since = 0.0
        super().resume_writing()
        self.flow.resume_reading()

    def shutdown(self) -> None:
        """Take what is on its way, answer it, and hang up."""
        if self.free:
            self.loop.call_later(LATE_SECONDS, self._end)
        else:
            self.cycle.keep_alive = False

    def _end(self) -> None:
        if self.free:
            self.transport.close()

    def overdue(self, now: float) -> bool:
        """Whether the client takes too long, or has nothing to say any more."""
        if self._unread_since:
            return now - self._unread_since > READ_SECONDS
        if self._since:
            return now - self._since > self._limit
        return self.free and now - self._idle_since > IDLE_SECONDS and self._idle_since > 0

    def hang_up(self) -> None:
        """Close a connection that is overdue."""
        if self._unread_since:
            self.transport.abort()
        elif self._since:
            self.refuse(problem("timeout", "The request came too slowly."), linger=0)
        else:
            self.transport.close()


async def sweep() -> None:
    """Close overdue connections, until cancelled: one look a second costs no timer per request."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        now = time.monotonic()
        for connection in [c for c in BoundedConnection.open if c.overdue(now)]:
            connection.hang_up()
