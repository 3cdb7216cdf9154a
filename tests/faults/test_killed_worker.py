"""Workers of the queue killed in the middle of a batch, as real processes."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from aios_platform.serving.postgres_queue import UNSETTLED, PostgresQueue
from aios_platform.settings import PROJECT_ROOT

pytestmark = [pytest.mark.postgres]

MESSAGES = 300
PUT = """
INSERT INTO inference_request (model, key, body)
SELECT 'm', 'k' || n, jsonb_build_object('n', n) FROM generate_series(1, :n) AS n
"""
WORKER = """
import asyncio, json, sys
from aios_platform.database import Database, parse_server_url
from aios_platform.serving.postgres_queue import PostgresQueue
from aios_platform.serving.worker import Worker, work

server, name, stuck_after = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Ours(Database):
    def url(self, _):
        return self._server.set(database=name).render_as_string(hide_password=False)

class Scorer:
    scored = 0

    async def predict(self, model, body, request_id):
        await asyncio.sleep(0.005)
        if self.scored == stuck_after:
            print("stuck", flush=True)
            await asyncio.Event().wait()
        self.scored += 1
        return "1", {"n": json.loads(body)["n"]}

queue = PostgresQueue(Ours(parse_server_url(server), embedded=False), lease_seconds=2.0)
worker = Worker(queue, Scorer(), concurrency=10, poll_seconds=0.05)
print("ready", flush=True)
sys.stdin.readline()
print("scored", asyncio.run(work(worker, ["m"])), flush=True)
"""


class Process:
    """A worker in a process; after so many messages it sticks in the middle of a batch."""

    def __init__(self, database, stuck_after: int = -1) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, database.server_url, database.name, str(stuck_after)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=PROJECT_ROOT,
        )  # fmt: skip

    def until(self, said: str) -> None:
        assert self._process.stdout.readline() == f"{said}\n"

    def go(self) -> None:
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def end(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        said, errors = self._process.communicate(timeout=30)
        assert self._process.returncode == 0, errors
        return int(said.split()[1])

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(own_database) -> Iterator[Callable[..., Process]]:
    processes: list[Process] = []

    def started(**options: int) -> Process:
        processes.append(Process(own_database, **options))
        return processes[-1]

    yield started
    for process in processes:
        process.close()


def count(database, what: str) -> int:
    with database.begin() as connection:
        return connection.execute(text(f"SELECT count(*) FROM {what}")).scalar_one()


def test_whatever_is_killed_each_key_has_one_result(own_database, start):
    queue = PostgresQueue(own_database)
    workers = first, second, third = start(stuck_after=5), start(stuck_after=25), start()
    for worker in workers:
        worker.until("ready")
    with own_database.begin() as connection:
        connection.execute(text(PUT), {"n": MESSAGES})
    queue.put("m", "k1", {"n": 1})
    for worker in (first, second):
        worker.go()
    for worker in (first, second):
        worker.until("stuck")
    third.go()
    for worker in (first, second):
        worker.kill()
    assert count(own_database, f"inference_request WHERE error = '{UNSETTLED}'") >= 1
    limit = time.monotonic() + 60
    while count(own_database, "inference_request"):
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert third.end() >= MESSAGES - 25
    with own_database.begin() as connection:
        rows = connection.execute(text("SELECT key, answer FROM inference_result")).all()
    assert sorted((row.key, row.answer["n"]) for row in rows) == sorted(
        (f"k{n}", n) for n in range(1, MESSAGES + 1)
    )
    assert count(own_database, "inference_dead_letter") == 0
