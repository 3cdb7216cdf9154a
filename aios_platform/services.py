"""The long-running processes of a workstation: web server, daemon, MLflow's pages, reports.

All listen on loopback. None of them knows users: put nothing of this on a network (see
`docs/operations.md`).
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import yaml

from aios_platform.database import Database
from aios_platform.errors import AiosError, SettingsError
from aios_platform.profiles import instance_configuration
from aios_platform.settings import PROJECT_ROOT, child_environment, settings

logger = logging.getLogger(__name__)

STOP_SECONDS = 20
START_SECONDS = 180


@dataclass(frozen=True)
class Service:
    """One child process.

    Args:
        name: What people call it.
        command: What to run.
        url: Where people find it.
        health: Page (http://) or port (tcp://host:port) that answers once it is ready.
        first: Whether those after it need it when they start.
    """

    name: str
    command: tuple[str, ...]
    url: str | None = None
    health: str | None = None
    first: bool = False


def dagster_home() -> Path:
    """The folder for DAGSTER_HOME, with the profile's `dagster.yaml` in it.

    Raises:
        SettingsError: What the profile needs is not installed.
    """
    home = settings().home_path / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    content = yaml.safe_dump(instance_configuration(settings()), sort_keys=False)
    target = home / "dagster.yaml"
    if not target.exists() or target.read_text() != content:
        # Several processes may come to this at once.
        temporary = target.with_suffix(f".{uuid4().hex}.writing")
        temporary.write_text(content)
        temporary.replace(target)
    return home


def environment(database: Database) -> dict[str, str]:
    """Variables that our child processes and the libraries' own commands need.

    Passwords are in it: print it only where the user asks for it.
    """
    from aios_platform.features.store import feast_environment

    return {
        "AIOS_HOME": str(settings().home_path),
        "AIOS_DATABASE_URL": database.server_url,
        "AIOS_ARTIFACTS": settings().artifact_root,
        "DAGSTER_HOME": str(dagster_home()),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_TRACKING_URI": database.url("mlflow"),
        # Not on the command line, which every user of the machine can read.
        "MLFLOW_BACKEND_STORE_URI": database.url("mlflow"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "OMP_WAIT_POLICY": "PASSIVE",
        **feast_environment(database.url("feast")),
    }


def workstation(
    *,
    port: int,
    mlflow_port: int,
    reports_port: int,
    workspace: Path = PROJECT_ROOT / "workspace.yaml",
) -> list[Service]:
    """The services of `aios ui`.

    Args:
        port: Port of the Dagster web server.
        mlflow_port: Port of MLflow's pages.
        reports_port: Port of the drift reports.
        workspace: Which code location to load.

    Raises:
        SettingsError: A port is taken.
    """
    for wanted in (port, mlflow_port, reports_port):
        require_free(wanted)
    python = sys.executable
    return [
        Service(
            "web server",
            (
                python, "-m", "dagster_webserver",
                "-w", str(workspace), "-h", "127.0.0.1", "-p", str(port),
            ),
            url=f"http://127.0.0.1:{port}",
            health=f"http://127.0.0.1:{port}/server_info",
        ),
        Service("daemon", (python, "-m", "aios_platform", "daemon", "-w", str(workspace))),
        Service(
            "MLflow",
            (
                python, "-m", "mlflow", "server",
                "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1",
            ),
            url=f"http://127.0.0.1:{mlflow_port}",
            health=f"http://127.0.0.1:{mlflow_port}/health",
        ),
        Service(
            "reports",
            (
                python, "-m", "http.server", str(reports_port),
                "--bind", "127.0.0.1", "--directory", str(_reports_folder()),
            ),
            url=f"http://127.0.0.1:{reports_port}",
            health=f"http://127.0.0.1:{reports_port}/",
        ),
    ]  # fmt: skip


def _reports_folder() -> Path:
    folder = Path(settings().artifact_root) / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Supervisor:
    """Starts services, waits until they answer, and stops all of them together.

    Args:
        services: What to start.
        variables: Environment variables for all of them.
        log_folder: Each service writes `<name>.log` there.
    """

    def __init__(
        self, services: list[Service], variables: dict[str, str], log_folder: Path
    ) -> None:
        self._services = services
        self._environment = child_environment(variables)
        self._logs = log_folder
        self._children: list[tuple[Service, subprocess.Popen[bytes]]] = []

    def start(self) -> None:
        """Start every service; returns when all that have a health page answer.

        Raises:
            AiosError: One ended, or did not answer in time; all are stopped then.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        try:
            for service in self._services:
                self._children.append((service, self._spawn(service)))
                if service.first:
                    self._wait(*self._children[-1])
            for service, child in self._children:
                self._wait(service, child)
        except BaseException:
            self.stop()
            raise

    def watch(self, interrupted: Callable[[], bool]) -> None:
        """Return when interrupted.

        Raises:
            AiosError: A service ended by itself.
        """
        while not interrupted():
            for service, child in self._children:
                if child.poll() is not None:
                    raise self._ended(service, child)
            time.sleep(0.3)

    def stop(self) -> None:
        """Ask every service to end, and kill what does not."""
        for _, child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
        limit = time.monotonic() + STOP_SECONDS
        for service, child in self._children:
            try:
                child.wait(max(0.1, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("%s did not stop in time; killed.", service.name)
                child.kill()
                child.wait()
            # A service's own children (code servers, runs) are in its process group, and some
            # of them outlive it.
            _end_group(child.pid)
        self._children = []

    def log_of(self, service: Service) -> Path:
        """The log file of a service."""
        return self._logs / f"{service.name.replace(' ', '-').lower()}.log"

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        with self.log_of(service).open("ab") as log:
            return subprocess.Popen(
                service.command,
                cwd=PROJECT_ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A terminal's Ctrl-C is ours to pass on; and an ignored SIGINT, inherited from
                # a shell's background job, would make Dagster deaf to SIGTERM too.
                start_new_session=True,
                preexec_fn=_default_signals,
            )

    def _wait(self, service: Service, child: subprocess.Popen[bytes]) -> None:
        if service.health is None:
            return
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit:
            if child.poll() is not None:
                raise self._ended(service, child)
            try:
                _ask(service.health)
                return
            except OSError:
                time.sleep(0.3)
        raise AiosError(
            f"{service.name} did not answer on {service.health} within {START_SECONDS} s.",
            remedy=f"Read {self.log_of(service)}.",
        )

    def _ended(self, service: Service, child: subprocess.Popen[bytes]) -> AiosError:
        return AiosError(
            f"{service.name} ended by itself with status {child.returncode}.",
            remedy=f"Read {self.log_of(service)}.",
        )


def _ask(health: str) -> None:
    parts = urlsplit(health)
    if parts.scheme == "tcp":
        with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5):
            return
    with urllib.request.urlopen(health, timeout=5):
        return


def _end_group(leader: int) -> None:
    for number, grace in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 1.0)):
        limit = time.monotonic() + grace
        try:
            os.killpg(leader, number)
            while time.monotonic() < limit:
                os.killpg(leader, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def require_free(port: int) -> None:
    """Refuse a port that something listens on.

    Raises:
        SettingsError: It is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise SettingsError(
                f"Port {port} on the loopback address is taken.",
                remedy="Stop what listens there, or choose another port (`aios ui --help`).",
            ) from None
