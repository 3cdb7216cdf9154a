"""Commands that run the services of a deployment: one of them, or all of them on this machine."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Part(StrEnum):
    """Services that `aios service` runs; daemon and gateway have commands of their own."""

    CODE_LOCATION = "code-location"
    WEB_SERVER = "web-server"
    MLFLOW = "mlflow"


def service(
    part: Annotated[Part, typer.Argument(help="Which one.")],
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port; default, its usual one.")] = None,
    workspace: Annotated[
        Path | None,
        typer.Option("-w", "--workspace", help="Code locations of the web server.", exists=True),
    ] = None,
) -> None:
    """Run one service of a deployment in the foreground, as a container does.

    None of them knows users. Beyond loopback they belong behind a proxy that does.
    """
    import os

    from aios_platform import deployment, services
    from aios_platform.database import database
    from aios_platform.settings import PROJECT_ROOT, export

    usual = deployment.Ports()
    if part is Part.CODE_LOCATION:
        command = deployment.code_location(host, port or usual.code)
    elif part is Part.WEB_SERVER:
        workspace = workspace or PROJECT_ROOT / "workspace.yaml"
        command = deployment.web_server(host, port or usual.web, workspace)
    else:
        command = deployment.mlflow(host, port or usual.mlflow)
    export(services.environment(database()))
    database().close()
    os.execv(command[0], command)


def stack(
    port: Annotated[int, typer.Option(help="Port of the Dagster web server.")] = 3000,
    code_port: Annotated[int, typer.Option(help="Port of the code location.")] = 4266,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's pages.")] = 5000,
    gateway_port: Annotated[int, typer.Option(help="Port of the gateway.")] = 8080,
    postgres_port: Annotated[int, typer.Option(help="Port of Postgres.")] = 5433,
    module: Annotated[
        str, typer.Option(help="Module of the definitions.", hidden=True)
    ] = "aios_platform.definitions",
) -> None:
    """Run a whole deployment on this machine, a process per service, until Ctrl-C.

    The services of docker/compose.yaml without an engine: a Postgres over TCP with a password, and
    AIOS_PROFILE=team. Its state is in AIOS_HOME/stack, apart from that of `aios ui`.
    """
    import signal

    from aios_platform import deployment, services
    from aios_platform.database import database
    from aios_platform.embedded import PasswordServer
    from aios_platform.settings import export, settings

    ports = deployment.Ports(port, code_port, mlflow_port, gateway_port, postgres_port)
    ports.require_free()
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopped.append(received))
    home = settings().home_path / "stack"
    server = PasswordServer(home / "postgres", postgres_port)
    print("Starting (about 30 s on a quiet machine) ...", flush=True)
    try:
        variables = {"AIOS_PROFILE": "team", "AIOS_HOME": str(home)}
        export(variables | {"AIOS_DATABASE_URL": server.start()})
        settings.cache_clear()
        workspace = deployment.write_workspace(home / "workspace.yaml", "127.0.0.1", code_port)
        supervisor = services.Supervisor(
            deployment.stack(ports, workspace, module),
            services.environment(database())
            | {"AIOS_MLFLOW_URL": f"http://127.0.0.1:{mlflow_port}"},
            home / "logs",
        )
        try:
            supervisor.start()
            print(f"  Dagster  http://127.0.0.1:{port}")
            print(f"  MLflow   http://127.0.0.1:{mlflow_port}")
            print(f"  Gateway  http://127.0.0.1:{gateway_port}/docs")
            print(f"  Logs     {home / 'logs'}")
            print("Ctrl-C stops all of them.", flush=True)
            supervisor.watch(lambda: bool(stopped))
        finally:
            print("Stopping ...", flush=True)
            supervisor.stop()
            database().close()
    finally:
        server.stop()
