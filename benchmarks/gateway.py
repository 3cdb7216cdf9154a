"""The gateway beside other model servers: the same network, the same rows, one run.

    python benchmarks/gateway.py --install
    python benchmarks/gateway.py [--peers FOLDER] [--only NAME ...] [--write]
    python benchmarks/gateway.py --plot-only

Every server runs all the time and is asked in turn, round after round, by a client process of its
own (`gateway_load.py`). Rates are requests per processor second of the server's whole process
tree, medians over the rounds: a busy machine hardly moves them. Latencies are wall time, and want
a quiet one. Ours validates, batches, counts and records every request (`record.share` 1); the
embedded Postgres that takes the records is a server beside it, and its processor time is given
apart. Peers are written as their documentation recommends (`gateway_peers/`), batch where they
can, wait at most a millisecond for a batch, and are fed the model in one matrix. A peer without a
virtual environment in --peers is left out. `--write` updates the README, and figures and plot in
docs/images/; `--plot-only` does so from the figures that are there.
"""

import argparse
import http.client
import io
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gateway_report
import numpy as np
import pyarrow as pa
from gateway_contenders import (
    CONTENDERS,
    OURS,
    Server,
    install,
    named,
    request,
    running,
)
from gateway_load import Load, Outcome, Plan, client
from gateway_models import HEAVY, INPUTS, SMALL, Quantisation, champion, fill, network, rows
from measuring import ALIKE
from online_features import server_seconds

HERE = Path(__file__).parent
DEFAULT_PEERS = HERE.parent / ".peers"
LEVELS = (1, 16, 64)
DIFFERENT_ROWS = 256
WARM_UP_SECONDS = 0.4
OPEN_CONNECTIONS = 64
HIGH_RATE = 1000.0
# A server is offered the higher rate where it answered this many times as much.
ROOM = 1.5
SWAPS, SWAP_SECONDS, SWAP_RATE = 4, 3.0, 1000.0
AFTER_SWAP_SECONDS = 0.2
LARGE_ROWS = 100
ARROW = "application/vnd.apache.arrow.stream"

Cell = dict[str, float]


def main() -> None:
    """Measure, print the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=DEFAULT_PEERS, help="virtual environments")
    parser.add_argument("--install", action="store_true", help="make those, and end")
    parser.add_argument("--only", nargs="*", default=[], help="names of the servers to run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one measurement")
    parser.add_argument("--write", action="store_true", help="update the README and its plot")
    parser.add_argument("--plot-only", action="store_true", help="from the figures there")
    options = parser.parse_args()
    if options.install:
        install(options.peers)
        return
    if options.plot_only:
        found = json.loads(gateway_report.FIGURES.read_text())
    else:
        found = measured(options)
    print(gateway_report.tables(found))
    if options.write or options.plot_only:
        gateway_report.write(found)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, in a fresh home."""
    load_average = os.getloadavg()[0]
    chosen = [
        contender
        for contender in CONTENDERS
        if (contender.name == OURS or not options.only or contender.name in options.only)
        and (contender.folder is None or (options.peers / contender.folder).exists())
    ]
    left_out = [contender.name for contender in CONTENDERS if contender not in chosen]
    if left_out:
        print(f"Left out: {', '.join(left_out)}.")
    with fresh_home() as home:
        lost = filled(home)
        sample = rows(DIFFERENT_ROWS)
        with client() as load, running(chosen, options.peers, home, sample[0]) as servers:
            bench = Bench(load, servers, home, sample, options.rounds, options.seconds)
            return {
                "load": load_average,
                "cores": os.cpu_count(),
                "rounds": options.rounds,
                "seconds": options.seconds,
                "heavy": gateway_report.multiply_adds(HEAVY),
                "closed": (closed := bench.closed()),
                "open": bench.opened(closed),
                "onnx": load.call(onnx_alone, str(home.parent / "packed.onnx")),
                "ways": bench.ways(),
                "bodies": bench.bodies(),
                "int8": asdict(lost),
                "swap": bench.swaps(),
            }


@contextmanager
def fresh_home() -> Iterator[Path]:
    """A home of ours, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="aios-bench-", ignore_cleanup_errors=True) as scratch:
        # The embedded server runs as a user of its own.
        Path(scratch).chmod(0o755)
        home = Path(scratch) / "home"
        home.mkdir()
        os.environ.update(ALIKE, AIOS_HOME=str(home), AIOS_DEFS=str(home.parent / "defs"))
        yield home


def filled(home: Path) -> Quantisation:
    """Promote every model in the home."""
    from aios_platform.database import database

    return fill(database(), artifact_store(), home.parent / "defs", home.parent)


def artifact_store() -> Any:
    """The home's artifact root."""
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.settings import settings

    return ArtifactStore(settings().artifact_root)


class Bench:
    """Measurements on servers that run.

    Args:
        load: The client.
        servers: By name.
        home: `AIOS_HOME` of ours.
        sample: Rows to ask, shape (rows, 20).
        rounds: Rounds of each measurement.
        seconds: Of each in a round.
    """

    def __init__(
        self,
        load: Load,
        servers: dict[str, Server],
        home: Path,
        sample: np.ndarray,
        rounds: int,
        seconds: float,
    ) -> None:
        self.load = load
        self.servers = servers
        self.home = home
        self.sample = sample
        self.rounds, self.seconds = rounds, seconds
        self.requests = {name: s.contender.requests(sample) for name, s in servers.items()}
        self.order = random.Random(0)

    def closed(self) -> dict[str, dict[str, list[Cell]]]:
        """Every server at every number of connections: name → connections → rounds."""
        found: dict[str, dict[str, list[Cell]]] = {
            name: {str(level): [] for level in LEVELS} for name in self.servers
        }
        for name in self.servers:
            self._ask(name, LEVELS[-1], WARM_UP_SECONDS)
        for _ in range(self.rounds):
            for level in LEVELS:
                for name in self._shuffled(self.servers):
                    found[name][str(level)].append(self._ask(name, level, self.seconds))
        return found

    def opened(self, closed: dict[str, dict[str, list[Cell]]]) -> list[dict[str, Any]]:
        """The same offered load for all: one that the slowest can take, and a higher one."""
        capacity = {
            name: statistics.median(cell["wall"] for cell in levels[str(LEVELS[-1])])
            for name, levels in closed.items()
        }
        able = [name for name in self.servers if capacity[name] > ROOM * HIGH_RATE]
        return [
            self._offered(min(capacity.values()) / 2, list(self.servers)),
            self._offered(HIGH_RATE, able),
        ]

    def ways(self) -> dict[str, list[Cell]]:
        """The heavy model with batches, without, and as int8; the small one for comparison."""
        models = ("heavy", "heavy_single", "heavy_int8")
        bodies = {
            model: [
                request(f"/v1/models/{model}:predict", _json({"instance": named(row)}))
                for row in self.sample
            ]
            for model in models
        }
        return self._in_turn(bodies, LEVELS[-1])

    def bodies(self) -> dict[str, list[Cell]]:
        """A hundred rows in a request: as JSON, and as Arrow."""
        matrix = rows(LARGE_ROWS, seed=4)
        path = "/v1/models/small:predict"
        table = pa.table({name: matrix[:, place] for place, name in enumerate(INPUTS)})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return self._in_turn(
            {
                "json": [request(path, _json({"instances": [named(row) for row in matrix]}))],
                "arrow": [request(path, sink.getvalue(), ARROW)],
            },
            LEVELS[1],
        )

    def swaps(self) -> dict[str, float]:
        """Promotions under load: what failed, and latencies around each and otherwise."""
        from aios_platform.database import database

        content = [network(SMALL, seed=seed) for seed in range(1, SWAPS + 1)]
        port = self.servers[OURS].port
        under_way = self.load.begin(
            Plan(
                port,
                self.requests[OURS],
                OPEN_CONNECTIONS,
                SWAP_SECONDS * (SWAPS + 1),
                SWAP_RATE,
            )
        )
        time.sleep(SWAP_SECONDS)
        store, spans = artifact_store(), []
        for version, onnx in enumerate(content, start=2):
            start = time.monotonic()
            champion(database(), store, "small", onnx, str(version))
            while served_version(port, "small") != str(version):
                time.sleep(0.01)
            spans.append((start, time.monotonic() + AFTER_SWAP_SECONDS))
            time.sleep(max(start + SWAP_SECONDS - time.monotonic(), 0))
        outcome = under_way.result()
        during = np.zeros(len(outcome.begun), dtype=bool)
        for start, end in spans:
            during |= (outcome.begun >= start) & (outcome.begun <= end)
        return {
            "swaps": SWAPS,
            "rate": SWAP_RATE,
            "answered": outcome.answered,
            "failed": outcome.failed,
            "seconds": statistics.median(end - AFTER_SWAP_SECONDS - start for start, end in spans),
            "before_p99": float(np.quantile(outcome.latencies[~during], 0.99)) * 1000,
            "during_p99": float(np.quantile(outcome.latencies[during], 0.99)) * 1000,
            "during_max": float(outcome.latencies[during].max()) * 1000,
        }

    def _offered(self, rate: float, names: Sequence[str]) -> dict[str, Any]:
        found: dict[str, list[Cell]] = {name: [] for name in names}
        seconds = 2 * self.seconds
        for number in range(max(2, self.rounds - 1)):
            for name in self._shuffled(names):
                port = self.servers[name].port
                outcome = self.load.offer(
                    Plan(port, self.requests[name], OPEN_CONNECTIONS, seconds, rate, number)
                )
                found[name].append(_cell(outcome, float("nan")))
        return {"rate": rate, "cells": found}

    def _in_turn(self, bodies: dict[str, list[bytes]], level: int) -> dict[str, list[Cell]]:
        server = self.servers[OURS]
        found: dict[str, list[Cell]] = {name: [] for name in bodies}
        for requests in bodies.values():
            self.load.offer(Plan(server.port, requests, level, WARM_UP_SECONDS))
        for _ in range(self.rounds):
            for name in self._shuffled(bodies):
                found[name].append(
                    self._measure(server, Plan(server.port, bodies[name], level, self.seconds))
                )
        return found

    def _ask(self, name: str, connections: int, seconds: float) -> Cell:
        server = self.servers[name]
        return self._measure(server, Plan(server.port, self.requests[name], connections, seconds))

    def _measure(self, server: Server, plan: Plan) -> Cell:
        ours = server.contender.name == OURS
        before, beside = server.cpu(), server_seconds(self.home) if ours else 0.0
        outcome = self.load.offer(plan)
        spent = server.cpu() - before
        cell = _cell(outcome, spent)
        if ours:
            cell["beside"] = (server_seconds(self.home) - beside) / spent
        return cell

    def _shuffled(self, names: Any) -> list[str]:
        mixed = list(names)
        self.order.shuffle(mixed)
        return mixed


def _cell(outcome: Outcome, cpu: float) -> Cell:
    return {
        "rate": outcome.answered / cpu,
        "wall": outcome.answered / outcome.seconds,
        "failed": outcome.failed,
        "p50": outcome.latency_ms(0.5),
        "p99": outcome.latency_ms(0.99),
        "client": outcome.cpu / outcome.seconds,
    }


def served_version(port: int, model: str) -> str | None:
    """The version that the gateway serves of a model."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/v1/models")
    listed = json.loads(connection.getresponse().read())["models"]
    connection.close()
    return next((entry["version"] for entry in listed if entry["model"] == model), None)


def onnx_alone(path: str) -> dict[str, float]:
    """Rows per processor second of ONNX Runtime, by rows in a batch."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = {}
    for count in LEVELS:
        batch = {"numerical": rows(count)}
        rounds, start = 0, time.process_time()
        while time.process_time() - start < 1:
            for _ in range(100):
                session.run(None, batch)
            rounds += 100
        found[str(count)] = rounds * count / (time.process_time() - start)
    return found


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


if __name__ == "__main__":
    main()
