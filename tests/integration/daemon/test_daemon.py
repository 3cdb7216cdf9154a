"""The real daemon and web server, on the embedded Postgres, with nobody at the keyboard."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from aios_platform.artifacts import ArtifactStore
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import entries
from aios_platform.services import Supervisor, environment, workstation
from aios_platform.settings import PROJECT_ROOT, settings
from tests.e2e import small_flights

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.timeout(900),
]
LOCATION = "small_flights"
SENSOR_NAMES = (
    "new_window", "matured_labels", "retrain_wanted", "approvals", "reconcile", "stuck_runs"
)  # fmt: skip
RUNS = """
{ runsOrError { ... on Runs { results { runId jobName status tags { key value } } } } }
"""
EVENTS = """
query($run: ID!) { logsForRun(runId: $run) { ... on EventConnection {
  events { ... on MessageEvent { message } } } } }
"""
SENSORS = """
query($repository: RepositorySelector!) { sensorsOrError(repositorySelector: $repository) {
  ... on Sensors { results { name sensorState { status ticks(limit: 50) { status } } } } } }
"""


class Workstation:
    """The services of `aios ui` on a code location of the tests."""

    def __init__(self, folder: Path, database) -> None:
        workspace = folder / "workspace.yaml"
        module = {
            "module_name": "tests.integration.daemon.hasty",
            "location_name": LOCATION,
            "working_directory": str(PROJECT_ROOT),
        }
        workspace.write_text(yaml.safe_dump({"load_from": [{"python_module": module}]}))
        self.ports = [free_port() for _ in range(3)]
        port, mlflow_port, reports_port = self.ports
        services = workstation(
            port=port,
            mlflow_port=mlflow_port,
            reports_port=reports_port,
            workspace=workspace,
        )
        self.supervisor = Supervisor(services, environment(database), folder / "logs")
        self.services = services
        self.killed: str | None = None
        self.supervisor.start()

    def ask(self, query: str, **variables: object) -> dict:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports[0]}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def runs(self) -> list[dict]:
        return self.ask(RUNS)["runsOrError"]["results"]

    def failures(self) -> list[str]:
        return [run["runId"] for run in self.runs() if run["status"] == "FAILURE"]

    def kill_one_that_trains(self) -> str | None:
        """Kill the process of a training run with -9; its id, or None while none is at work."""
        for run in self.runs():
            if run["jobName"].endswith("__retrain") and run["status"] == "STARTED":
                said = self.ask(EVENTS, run=run["runId"])["logsForRun"]["events"]
                pids = [re.search(r"in process \(pid: (\d+)\)", e.get("message", "")) for e in said]
                found = [int(match[1]) for match in pids if match]
                if found:
                    os.kill(found[0], signal.SIGKILL)
                    return str(run["runId"])
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def database(own_home):
    """A Postgres that nothing else has written to."""
    from aios_platform.database import database

    return database()


@pytest.fixture(scope="module")
def bootstrapped(database, tmp_path_factory):
    """A workstation that has brought the small model to life all by itself."""
    station = Workstation(tmp_path_factory.mktemp("station"), database)
    names = small_flights.names()
    store = ArtifactStore(settings().artifact_root)
    limit = time.monotonic() + 600
    try:
        while time.monotonic() < limit:
            station.killed = station.killed or station.kill_one_that_trains()
            decided = entries(database, subject=names.model, kind="retrain_decision")
            if len(decided) >= 2 or set(station.failures()) - {station.killed}:
                break
            time.sleep(1)
        yield station, names, store
    finally:
        station.supervisor.stop()


def test_the_daemon_brings_a_new_model_to_life(bootstrapped, database):
    station, names, store = bootstrapped
    assert station.failures() == [station.killed]
    assert champion_of(database, names.model).trained_through == "2013-04"
    assert {"2013-05", "2013-06"} <= set(store.keys(names.predictions))


def test_each_cause_had_one_run_and_that_which_was_killed_a_second(bootstrapped):
    station, _, _ = bootstrapped
    keys = {
        run["runId"]: tag["value"]
        for run in station.runs()
        for tag in run["tags"]
        if tag["key"] == "aios/cause_key"
    }
    assert len(keys) >= 4
    again = keys.pop(station.killed)
    assert sorted(keys.values()).count(again) == 1
    assert len(keys) == len(set(keys.values()))


def test_the_killed_run_left_one_version_and_one_promotion(bootstrapped, database):
    station, names, _ = bootstrapped
    assert station.killed
    promotions = entries(database, subject=names.model, kind="promotion")
    candidates = entries(database, subject=names.model, kind="candidate")
    assert len(promotions) == 1
    assert {row.payload["version"] for row in candidates} == {
        promotions[0].payload["champion"]["version"]
    }


def test_the_killed_run_was_told_and_its_alert_taken_back(bootstrapped, database):
    """The second run did the work."""
    station, names, _ = bootstrapped
    with database.begin() as connection:
        alerts = connection.exec_driver_sql(
            "SELECT key, count, resolved_at FROM alert WHERE kind IN ('run_died', 'run_given_up')"
        ).all()
    [alert] = alerts
    assert alert.key == f"run_died:{names.model}:{station.killed}"
    assert alert.count == 1
    assert alert.resolved_at


def test_sensors_tick_without_an_error(bootstrapped):
    station, names, _ = bootstrapped
    repository = {"repositoryName": "__repository__", "repositoryLocationName": LOCATION}
    sensors = station.ask(SENSORS, repository=repository)["sensorsOrError"]["results"]
    found = {sensor["name"]: sensor["sensorState"] for sensor in sensors}
    for name in SENSOR_NAMES:
        state = found[f"{names.model}__{name}"]
        assert state["status"] == "RUNNING"
        assert state["ticks"]
        assert not [tick for tick in state["ticks"] if tick["status"] == "FAILURE"]


def test_what_the_daemon_did_is_the_schedulers_doing(bootstrapped, database):
    _, names, _ = bootstrapped
    kinds = ("candidate", "verdict", "promotion", "retrain_decision", "alias_projected")
    for kind in kinds:
        rows = entries(database, subject=names.model, kind=kind)
        assert {row.principal for row in rows} == {"service:scheduler"}, kind


def test_the_pages_answer(bootstrapped):
    station, names, _ = bootstrapped
    for port in station.ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert page.status == 200
    [report, *_] = sorted(Path(settings().artifact_root, "reports", names.model, "drift").iterdir())
    url = f"http://127.0.0.1:{station.ports[2]}/{names.model}/drift/{report.name}"
    with urllib.request.urlopen(url, timeout=30) as page:
        assert b"<html" in page.read(100_000).lower()


def test_nothing_listens_beyond_loopback(bootstrapped):
    assert bootstrapped
    family = psutil.Process(os.getpid()).children(recursive=True)
    addresses = set()
    for process in family:
        # One may end while it is looked at.
        with contextlib.suppress(psutil.NoSuchProcess):
            addresses |= {
                connection.laddr.ip
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            }
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}


def test_ctrl_c_stops_everything_and_frees_the_ports(tmp_path):
    ports = [str(free_port()) for _ in range(3)]
    process = subprocess.Popen(
        [sys.executable, "-m", "aios_platform", "ui", "--port", ports[0],
         "--mlflow-port", ports[1], "--reports-port", ports[2]],
        stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT,
        env={**os.environ, "AIOS_HOME": str(settings().home_path)},
    )  # fmt: skip
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        assert any(f"http://127.0.0.1:{ports[0]}" in line for line in lines)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()
    gone, alive = psutil.wait_procs(family, timeout=10)
    assert gone
    assert not alive
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(port))) != 0
