"""A stand on which daemons are started, killed, and looked at from outside."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.api import execute_run
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus

from aios_platform.components.model_lifecycle.names import CAUSE_TAG
from aios_platform.components.model_lifecycle.plan import Job, LifecycleState
from aios_platform.database import Database
from aios_platform.services import environment
from aios_platform.settings import PROJECT_ROOT
from tests.integration.daemon import probe

PATIENCE_SECONDS = 60.0


class Stand:
    """A code server that stays, daemons that come and go, and what they leave behind."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self.port = free_port()
        self.variables = {**environment(database), "PROBE_FOLDER": str(folder)}
        self.daemons: list[int] = []
        self.rest()
        (folder / "alias").write_text("")
        self.instance = dg.DagsterInstance.from_config(self.variables["DAGSTER_HOME"])
        grpc = ("dagster", "api", "grpc", "-m", "tests.integration.daemon.probe")
        self._server = self._start(*grpc, "-p", str(self.port), "-d", str(PROJECT_ROOT))
        self._forge = self._start(
            "tests.integration.daemon.crashing", str(self.port), pipe=subprocess.PIPE
        )
        assert self._forge.stdout.readline() == "ready\n"
        until(lambda: listens(self.port))

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        """A command of `aios`, as a process."""
        return self._start("aios_platform", *arguments)

    def _start(self, *module: str, pipe: int | None = None) -> subprocess.Popen[str]:
        with (self.folder / f"{module[0]}.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *module],
                env={**os.environ, **self.variables}, cwd=PROJECT_ROOT, text=True,
                stdin=pipe, stdout=pipe or log, stderr=log,
            )  # fmt: skip

    def close(self) -> None:
        self.kill_all()
        for process in (self._forge, self._server):
            process.kill()
            process.communicate()
        self.instance.dispose()

    def start(self, *kinds: str) -> int:
        """A daemon (`crashing.live`), forked from a process that has imported everything."""
        self._forge.stdin.write(f"{' '.join(kinds)}\n")
        self._forge.stdin.flush()
        self.daemons.append(int(self._forge.stdout.readline()))
        return self.daemons[-1]

    def kill_all(self) -> None:
        for pid in self.daemons:
            kill(pid)
        self.daemons = []

    def rest(self) -> None:
        """The plan wants nothing."""
        self.want(probe.NOTHING)

    def want(self, state: LifecycleState, sensor: str = "", point: str = "") -> None:
        """What the plan finds, and where the daemon dies at the sensor's next tick."""
        trial = {"state": state.model_dump(mode="json"), "sensor": f"probe__{sensor}"}
        new = self.folder / "trial.new"
        new.write_text(json.dumps({**trial, "point": point}))
        new.replace(self.folder / "trial.json")

    def states(self) -> dict[str, InstigatorState]:
        found = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        return {state.instigator_name.removeprefix("probe__"): state for state in found}

    def only(self, *sensors: str) -> None:
        """Switch the other sensors off, while no daemon runs."""
        for name, state in self.states().items():
            status = InstigatorStatus.RUNNING if name in sensors else InstigatorStatus.STOPPED
            self.instance.update_instigator_state(state.with_status(status))

    def ticks(self, sensor: str) -> int:
        state = self.states()[sensor]
        return len(self.instance.get_ticks(state.instigator_origin_id, state.selector_id))

    def pass_ticks(self, sensor: str, number: int = 2) -> None:
        """Wait until the sensor was evaluated some more times, beyond one that is in progress."""
        seen = self.ticks(sensor)
        until(lambda: self.ticks(sensor) > seen + number)

    def runs(self, cause: str | None = None) -> list[dg.DagsterRun]:
        tags = {CAUSE_TAG: cause} if cause else {}
        return self.instance.get_runs(dg.RunsFilter(tags=tags))

    def queued(self, cause: str) -> dg.DagsterRun:
        """The cause's run, as soon as it waits to be executed."""
        status = [dg.DagsterRunStatus.QUEUED]
        wanted = dg.RunsFilter(tags={CAUSE_TAG: cause}, statuses=status)
        until(lambda: self.instance.get_runs(wanted))
        [run] = self.instance.get_runs(wanted)
        return run

    def shift(self, sensor: str, seconds: float) -> None:
        """Move a sensor's past, as if the clock had been set, or the daemon been away."""
        state = self.states()[sensor]
        data = state.instigator_data
        moved = {
            name: value + seconds
            for name in ("last_tick_timestamp", "last_tick_start_timestamp")
            if (value := getattr(data, name))
        }
        self.instance.update_instigator_state(state.with_data(data._replace(**moved)))
        [tick] = self.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        earlier = tick.tick_data._replace(timestamp=tick.timestamp + seconds)
        self.instance.update_tick(tick._replace(tick_data=earlier))

    def work(self) -> list[str]:
        """Ids of the runs that did their work, in order."""
        log = self.folder / "work.log"
        return log.read_text().split() if log.exists() else []

    def execute(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        """Execute a run as its worker process does; how it ended."""
        starting = DagsterEventType.RUN_STARTING.value
        self.instance.report_dagster_event(
            DagsterEvent(event_type_value=starting, job_name=run.job_name), run.run_id
        )
        job = probe.job(Job(run.job_name.removeprefix("probe__")))
        again = self.instance.get_run_by_id(run.run_id)
        execute_run(InMemoryJob(job), again, self.instance)
        return self.instance.get_run_by_id(run.run_id).status

    def term(self) -> int:
        return self.rows("SELECT term FROM daemon_term")[0].term

    def succeed(self, run: dg.DagsterRun) -> None:
        event = DagsterEvent(
            event_type_value=DagsterEventType.RUN_SUCCESS.value, job_name=run.job_name
        )
        self.instance.report_dagster_event(event, run.run_id)

    def rows(self, statement: str, **values: object) -> list:
        with self.database.begin() as connection:
            return connection.exec_driver_sql(statement, values).all()


def free_port() -> int:
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probing:
        return probing.connect_ex(("localhost", port)) == 0


def kill(pid: int) -> None:
    if psutil.pid_exists(pid):
        os.kill(pid, 9)
        until(lambda: not psutil.pid_exists(pid))


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < limit, "It did not come to pass."
        time.sleep(0.02)


@contextmanager
def opened(folder: Path, database: Database) -> Iterator[Stand]:
    stand = Stand(folder, database)
    try:
        yield stand
    finally:
        stand.close()
