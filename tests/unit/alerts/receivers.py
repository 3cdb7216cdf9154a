"""What the tests of alerts send, and real servers that receive it."""

import socketserver
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from aios_platform.contracts.alerts import Alert, AlertBatch, AlertKind, RaisedAlert, Severity
from aios_platform.errors import AlertError


def an_alert(**changes: Any) -> Alert:
    made = {
        "kind": AlertKind.DATA_FAULT,
        "subject": "m",
        "key": "k",
        "severity": Severity.WARNING,
        "summary": "Half of the rows are missing.",
        "raised_at": datetime.now(UTC),
    }
    return Alert(**(made | changes))


def a_batch(*alerts: Alert, number: str = "msg_1") -> AlertBatch:
    now = datetime.now(UTC)
    return AlertBatch(
        id=number,
        subject="m",
        composed_at=now,
        alerts=[
            RaisedAlert(id=i, alert=alert, count=1, first_seen=now, last_seen=now)
            for i, alert in enumerate(alerts or [an_alert()], start=1)
        ],
    )


class Kept:
    """An output that keeps what it is given, and fails while it is told to."""

    def __init__(self, name: str = "log") -> None:
        self.name = name
        self.batches: list[AlertBatch] = []
        self.broken = False

    def send(self, batch: AlertBatch) -> None:
        if self.broken:
            raise AlertError("It is down.")
        self.batches.append(batch)

    @property
    def keys(self) -> list[list[str]]:
        return [[raised.alert.key for raised in batch.alerts] for batch in self.batches]


class WebServer:
    """Answers with the statuses it is given, then with 204; `None` hangs, 'drip' never ends."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int | str | None] = []
        self.delay = 0.0
        self.over = Event()

    @property
    def ids(self) -> list[str]:
        return [headers["webhook-id"] for _, headers, _ in self.requests]

    @contextmanager
    def serving(self) -> Iterator[str]:
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                received.requests.append((self.path, headers, body))
                received.over.wait(received.delay)
                answer = received.answers.pop(0) if received.answers else 204
                if answer is None:
                    received.over.wait(10)
                elif answer == "drip":
                    while not received.over.wait(0.05):
                        self.wfile.write(b"x")
                else:
                    self.send_response(answer)
                    self.send_header("Location", "/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that gave up is no fault of the server."""

        yield from _served(Server(("127.0.0.1", 0), Handler), self.over)

    def until(self, count: int) -> None:
        limit = time.monotonic() + 20
        while len(self.requests) < count:
            assert time.monotonic() < limit, f"{len(self.requests)} of {count} requests"
            time.sleep(0.01)


class MailServer:
    """Speaks as much SMTP as a sender needs.

    Args:
        tls: Offers STARTTLS with it.
        at_once: Speaks TLS from the first byte, with `tls`.
        refuses: What it answers to a command, e.g. {"RCPT TO:<bob@example.org>": "550 no"};
            nothing hangs up.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        at_once: bool = False,
        refuses: dict[str, str] | None = None,
    ) -> None:
        self.tls, self.at_once, self.refuses = tls, at_once, refuses or {}
        self.commands: list[str] = []
        self.raw: list[bytes] = []
        self.encrypted: list[bool] = []
        self.over = Event()

    @property
    def mails(self) -> list[EmailMessage]:
        return [message_from_bytes(raw, policy=policy.SMTP) for raw in self.raw]

    @contextmanager
    def serving(self) -> Iterator[str]:
        received = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.secure = False
                if received.at_once:
                    self.start_tls()
                file = self.request.makefile("rb")
                self.say("220 here")
                while line := file.readline().decode().strip():
                    verb, *rest = line.split(" ", 1)
                    verb = verb.upper()
                    line = " ".join([verb, *rest])
                    received.commands.append(line)
                    if line in received.refuses or verb in received.refuses:
                        said = received.refuses.get(line) or received.refuses[verb]
                        if not said:
                            break
                        self.say(said)
                    elif verb == "EHLO":
                        offers = ["250-here", "250-AUTH PLAIN"]
                        if received.tls is not None and not self.secure:
                            offers.append("250-STARTTLS")
                        self.say("\r\n".join([*offers, "250 8BITMIME"]))
                    elif verb == "STARTTLS":
                        self.say("220 go on")
                        file.close()
                        self.start_tls()
                        file = self.request.makefile("rb")
                    elif verb == "AUTH":
                        self.say("235 welcome")
                    elif verb == "DATA":
                        self.say("354 go on")
                        lines = iter(file.readline, b".\r\n")
                        received.raw.append(b"".join(lines))
                        received.encrypted.append(self.secure)
                        self.say("250 taken")
                    else:
                        self.say("221 bye" if verb == "QUIT" else "250 fine")
                file.close()

            def start_tls(self) -> None:
                self.request = received.tls.wrap_socket(self.request, server_side=True)
                self.secure = True

            def say(self, line: str) -> None:
                self.request.sendall(line.encode() + b"\r\n")

            def finish(self) -> None:
                # TLS has put another socket in the place of the one that the server closes.
                self.request.close()

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

            def handle_error(self, request: Any, _: Any) -> None:
                """A client that does not trust us is no fault of the server."""
                request.close()

        for url in _served(Server(("127.0.0.1", 0), Handler), self.over):
            yield url.removeprefix("http://")


def _served(server: socketserver.BaseServer, over: Event) -> Iterator[str]:
    serve: Callable[..., None] = server.serve_forever
    thread = Thread(target=serve, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
