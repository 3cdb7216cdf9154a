"""A deployment: one process per service, as the containers of docker/compose.yaml have them.

`aios service NAME` runs one of them; `aios stack` runs all of them on this machine, beside a
Postgres of its own that is reached over TCP with a password.
"""

import sys
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from aios_platform.services import Service, require_free

CODE = "aios_platform.definitions"
LOCATION = "aios_platform"


@dataclass(frozen=True)
class Ports:
    """Where the services listen."""

    web: int = 3000
    code: int = 4266
    mlflow: int = 5000
    gateway: int = 8080
    postgres: int = 5433

    def require_free(self) -> None:
        """Refuse ports that something listens on.

        Raises:
            SettingsError: One is taken.
        """
        for field in fields(self):
            require_free(getattr(self, field.name))


def code_location(host: str, port: int, module: str = CODE) -> tuple[str, ...]:
    """Serves the definitions, and starts the runs of the team's instance."""
    return (
        sys.executable, "-m", "dagster", "api", "grpc", "-m", module, "-h", host, "-p", str(port),
        "--location-name", LOCATION, "--use-python-environment-entry-point",
    )  # fmt: skip


def web_server(host: str, port: int, workspace: Path) -> tuple[str, ...]:
    """Dagster's pages and its GraphQL. It knows no users."""
    return (
        sys.executable, "-m", "dagster_webserver",
        "-w", str(workspace), "-h", host, "-p", str(port),
    )  # fmt: skip


def daemon(workspace: Path) -> tuple[str, ...]:
    """Schedules, sensors and the queue of runs."""
    return (sys.executable, "-m", "aios_platform", "daemon", "-w", str(workspace))


def mlflow(host: str, port: int) -> tuple[str, ...]:
    """MLflow's pages. They know no users."""
    return (
        sys.executable, "-m", "mlflow", "server",
        "--host", host, "--port", str(port), "--workers", "1",
    )  # fmt: skip


def gateway(port: int) -> tuple[str, ...]:
    """The gateway, on loopback."""
    return (sys.executable, "-m", "aios_platform", "serve", "--port", str(port))


def write_workspace(path: Path, host: str, port: int) -> Path:
    """A workspace of one code location that is reached over gRPC."""
    server = {"host": host, "port": port, "location_name": LOCATION}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return path


def stack(ports: Ports, workspace: Path, module: str = CODE) -> list[Service]:
    """The services of a deployment on loopback, in the order in which they start.

    Args:
        ports: Where they listen.
        workspace: Names the code location on its port.
        module: Where the code location's definitions are.
    """
    here = "127.0.0.1"
    web, pages = f"http://{here}:{ports.web}", f"http://{here}:{ports.mlflow}"
    return [
        Service(
            "code location",
            code_location(here, ports.code, module),
            health=f"tcp://{here}:{ports.code}",
            first=True,
        ),
        Service("web server", web_server(here, ports.web, workspace), web, f"{web}/server_info"),
        Service("daemon", daemon(workspace)),
        Service("MLflow", mlflow(here, ports.mlflow), pages, f"{pages}/health"),
        Service(
            "gateway",
            gateway(ports.gateway),
            f"http://{here}:{ports.gateway}",
            f"http://{here}:{ports.gateway}/healthz",
        ),
    ]
