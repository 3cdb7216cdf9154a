"""`aios serve` as a process of its own, and plain ways to talk to it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from aios_platform.database import Database
from aios_platform.settings import PROJECT_ROOT

SECONDS = 60
SERVE = "import sys; from aios_platform.cli import main; main()"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class GatewayProcess:
    """A gateway.

    Args:
        home: Its home; its log is written there.
        database: The server that its ledger is on.
        artifacts: Its artifact root.
        defs: Folder of the declarations.
        workers: Processes that share the port.
        before: Code that runs in it first.
    """

    def __init__(
        self,
        home: Path,
        *,
        database: Database,
        artifacts: str,
        defs: Path,
        workers: int = 1,
        before: str = "",
    ) -> None:
        self._log = home / "gateway.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AIOS_")}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{before}\n{SERVE}", "serve", "--port", "0",
                 "--workers", str(workers)],
                stdout=subprocess.PIPE, stderr=log, text=True, cwd=PROJECT_ROOT,
                env=kept
                | {
                    "AIOS_HOME": str(home),
                    "AIOS_DATABASE_URL": database.server_url,
                    "AIOS_ARTIFACTS": artifacts,
                    "AIOS_DEFS": str(defs),
                },
            )  # fmt: skip
        said = self.process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", said)
        assert found, f"{said}{self.log}"
        self.port = int(found[1])
        self.until(lambda: self._answers() and self.ask("GET", "/readyz").status == 200)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    @property
    def children(self) -> list[psutil.Process]:
        """Its worker processes."""
        found = psutil.Process(self.process.pid).children()
        return [child for child in found if "spawn_main" in " ".join(child.cmdline())]

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            return asked(connection, method, path, body, headers)
        finally:
            connection.close()

    def predict(self, model: str, content: Any, **headers: str) -> Answer:
        """Ask for a prediction; `_` in the name of a header is `-`."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(
            "POST", f"/v1/models/{model}:predict", body, {"content-type": JSON, **named}
        )

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the metric's samples that have these labels."""
        page = self.ask("GET", "/metrics").body.decode()
        found = 0.0
        for line in page.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(
                f'{label}="{wanted}"' in sample for label, wanted in labels.items()
            ):
                found += float(value)
        return found

    def connect(self) -> socket.socket:
        """A connection to write anything on."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def until(self, holds: Callable[[], Any]) -> None:
        """Wait until something holds."""
        limit = time.monotonic() + SECONDS
        while not holds():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < limit, self.log
            time.sleep(0.02)

    def end(self) -> int:
        """End it as an operator does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(SECONDS)
        self.process.stdout.close()
        return status

    def close(self) -> None:
        """End it in any case."""
        if self.process.poll() is None:
            every = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
            for process in every:
                process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _answers(self) -> bool:
        try:
            return self.ask("GET", "/healthz").status == 200
        except OSError:
            return False


JSON = "application/json"


def asked(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Ask on a connection that goes on living."""
    connection.request(method, path, body, dict(headers or {}))
    found = connection.getresponse()
    return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())


@contextmanager
def gateway(home: Path, **options: Any) -> Iterator[GatewayProcess]:
    """A gateway for as long as the block lasts."""
    home.mkdir(exist_ok=True)
    started = GatewayProcess(home, **options)
    try:
        yield started
    finally:
        started.close()
