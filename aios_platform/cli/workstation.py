"""Commands that start the pages, and that let other tools' commands in."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option(help="Port of the Dagster web server.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of MLflow's pages.")] = 5000,
    reports_port: Annotated[int, typer.Option(help="Port of the drift reports.")] = 3001,
) -> None:
    """Start the Dagster web server, the daemon and MLflow's pages on loopback, until Ctrl-C."""
    import signal

    from aios_platform import services
    from aios_platform.database import database
    from aios_platform.settings import settings

    opened = database()
    supervisor = services.Supervisor(
        services.workstation(port=port, mlflow_port=mlflow_port, reports_port=reports_port),
        services.environment(opened)
        | {
            "AIOS_REPORTS_URL": f"http://127.0.0.1:{reports_port}",
            "AIOS_MLFLOW_URL": f"http://127.0.0.1:{mlflow_port}",
        },
        settings().home_path / "logs",
    )
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopped.append(received))
    print("Starting (about 20 s on a quiet machine) ...", flush=True)
    supervisor.start()
    try:
        print(f"  Dagster  http://127.0.0.1:{port}    assets, runs, sensors")
        print(f"  MLflow   http://127.0.0.1:{mlflow_port}    training runs, model versions")
        print(f"  Reports  http://127.0.0.1:{reports_port}    drift reports")
        print(f"  Logs     {settings().home_path / 'logs'}")
        print("Ctrl-C stops all of them.", flush=True)
        supervisor.watch(lambda: bool(stopped))
    finally:
        print("Stopping ...", flush=True)
        supervisor.stop()


def env() -> None:
    """Print shell exports for Dagster's, MLflow's and Feast's own commands: eval "$(aios env)".

    The output may contain the database password. An embedded Postgres runs only while something
    uses it: keep `aios ui` running beside the shell.
    """
    import shlex

    from aios_platform import services
    from aios_platform.database import database

    for name, value in services.environment(database()).items():
        if name != "AIOS_DATABASE_URL" or not database().embedded:
            print(f"export {name}={shlex.quote(value)}")


def feast(context: typer.Context) -> None:
    """Run a Feast command on the feature repository, e.g. `aios feast feature-views list`."""
    import subprocess

    from aios_platform import services
    from aios_platform.database import database
    from aios_platform.profiles import feature_store_file
    from aios_platform.settings import child_environment, settings

    code = subprocess.call(
        [str(Path(sys.executable).with_name("feast")), "-c", str(settings().feature_repo),
         "-f", str(feature_store_file(settings(), settings().feature_repo)), *context.args],
        env=child_environment(services.environment(database())),
    )  # fmt: skip
    raise typer.Exit(code)
