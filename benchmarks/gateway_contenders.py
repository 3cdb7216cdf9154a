"""The servers of the gateway's benchmark: how each is started, asked, and what it spends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import numpy as np
import psutil
from gateway_models import INPUTS
from measuring import ALIKE, BIN

HERE = Path(__file__).parent
PEERS = HERE / "gateway_peers"
START_SECONDS = 120.0
STOP_SECONDS = 15.0
OURS, LIMIT = "ours", "no-op on uvicorn"

Body = Callable[[np.ndarray], bytes]


@dataclass(frozen=True)
class Contender:
    """One server.

    Attributes:
        name: What tables call it.
        command: Starts it; {port} is replaced.
        path: Of predictions.
        body: One row, shape (20,), as the server wants it.
        folder: Name of its virtual environment; None: the project's own.
        answers: Word that is in every good answer.
    """

    name: str
    command: tuple[str, ...]
    path: str
    body: Body
    folder: str | None = None
    answers: str = "probability"

    def requests(self, rows: np.ndarray) -> list[bytes]:
        """A whole HTTP request per row."""
        return [request(self.path, self.body(row)) for row in rows]


@dataclass
class Server:
    """A server that runs.

    Attributes:
        contender: Which.
        port: On loopback.
        process: Its first process.
    """

    contender: Contender
    port: int
    process: psutil.Process

    def cpu(self) -> float:
        """Processor seconds of its processes so far, those that ended included."""
        total = 0.0
        for each in [self.process, *self.process.children(recursive=True)]:
            try:
                times = each.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
        return total


def request(path: str, body: bytes, kind: str = "application/json") -> bytes:
    """A whole HTTP request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def named(row: np.ndarray) -> dict[str, float]:
    """A row as the gateway's contract has it."""
    return {name: _short(value) for name, value in zip(INPUTS, row, strict=True)}


def _short(value: np.floating) -> float:
    return round(float(value), 4)


def _ours(row: np.ndarray) -> bytes:
    return _json({"instance": named(row)})


def _features(row: np.ndarray) -> bytes:
    return _json({"features": [_short(value) for value in row]})


def _rows(key: str) -> Body:
    return lambda row: _json({key: [[_short(value) for value in row]]})


def _tensor(row: np.ndarray) -> bytes:
    data = [_short(value) for value in row]
    tensor = {"name": "numerical", "shape": [1, len(data)], "datatype": "FP32", "data": data}
    return _json({"inputs": [tensor]})


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _script(name: str) -> tuple[str, ...]:
    return ("{python}", str(PEERS / f"{name}_server.py"), "{port}")


OUR_GATEWAY = Contender(
    OURS, (str(BIN / "aios"), "serve", "--port", "{port}"), "/v1/models/small:predict", _ours
)
CONTENDERS = (
    OUR_GATEWAY,
    Contender(LIMIT, _script("noop"), "/", _ours),
    Contender("mosec", _script("mosec"), "/inference", _features, "mosec"),
    Contender("naive FastAPI", _script("naive"), "/predict", _features, "naive"),
    Contender(
        "MLServer", _script("mlserver"), "/v2/models/small/infer", _tensor, "mlserver"
    ),
    Contender("KServe", _script("kserve"), "/v2/models/small/infer", _tensor, "kserve", "outputs"),
    Contender("MLflow", _script("mlflow"), "/invocations", _rows("inputs"), None, "predictions"),
    Contender(
        "BentoML",
        (
            "{python}", "-m", "bentoml", "serve", "bentoml_server:Scorer",
            "--working-dir", str(PEERS), "--host", "127.0.0.1", "--port", "{port}",
        ),
        "/predict", _rows("rows"), "bentoml", "[",
    ),
    Contender("LitServe", _script("litserve"), "/predict", _features, "litserve"),
    Contender("Ray Serve", _script("ray"), "/", _features, "ray"),
)  # fmt: skip


def install(peers: Path) -> None:
    """Make a virtual environment per peer, with the versions that are pinned here."""
    for wanted in sorted((PEERS / "requirements").glob("*.txt")):
        place = peers / wanted.stem
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-r", str(wanted)], check=True)


@contextmanager
def running(
    contenders: Sequence[Contender], peers: Path, home: Path, row: np.ndarray
) -> Iterator[dict[str, Server]]:
    """Servers, all at once, until they are not needed any more.

    Args:
        contenders: Which.
        peers: The virtual environments.
        home: `AIOS_HOME` of ours; `packed.onnx` and the servers' logs are in its parent.
        row: Asked of each until it answers.
    """
    started: list[Server] = []
    try:
        for contender in contenders:
            started.append(_start(contender, peers, home))
        for server in started:
            _await(server, home.parent, row)
        yield {server.contender.name: server for server in started}
    finally:
        _stop(started)


def _start(contender: Contender, peers: Path, home: Path) -> Server:
    port = _free_port()
    python = (
        str(peers / contender.folder / "bin" / "python") if contender.folder else sys.executable
    )
    command = [part.format(python=python, port=port) for part in contender.command]
    variables = {
        **ALIKE,
        "AIOS_HOME": str(home),
        "AIOS_DEFS": str(home.parent / "defs"),
        "MODEL": str(home.parent / "packed.onnx"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(PEERS),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    inherited = {name: value for name, value in os.environ.items() if name != "AIOS_DATABASE_URL"}
    with _log(contender, home.parent).open("wb") as log:
        child = subprocess.Popen(
            command,
            env={**inherited, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=home.parent,
        )
    return Server(contender, port, psutil.Process(child.pid))


def _await(server: Server, folder: Path, row: np.ndarray) -> None:
    until = time.monotonic() + START_SECONDS
    contender = server.contender
    answer = ""
    while time.monotonic() < until and server.process.status() != psutil.STATUS_ZOMBIE:
        status, answer = _asked(server.port, contender.path, contender.body(row))
        if status == HTTPStatus.OK and contender.answers in answer:
            return
        time.sleep(0.2)
    log = _log(contender, folder).read_text(errors="replace")[-3000:]
    raise SystemExit(f"{contender.name} does not answer: {answer[:500]}\n{log}")


def _asked(port: int, path: str, body: bytes) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()


def _stop(servers: Sequence[Server]) -> None:
    every: list[psutil.Process] = []
    for server in servers:
        every += [*server.process.children(recursive=True), server.process]
        server.process.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs(every, timeout=STOP_SECONDS)
    for process in left:
        process.kill()


def _log(contender: Contender, folder: Path) -> Path:
    return folder / f"{contender.name.replace(' ', '-')}.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
