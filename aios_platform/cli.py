"""The command `aios`: thin; each command calls one function of a stage or of the runner."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aios_platform.errors import AiosError

if TYPE_CHECKING:
    from aios_platform.components.model_lifecycle.names import Names

app = typer.Typer(
    name="aios",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Declare a model once; run, watch and govern its whole life. "
    "Start with `aios run MODEL`, then `aios ui`.",
)


@app.callback()
def _configure() -> None:
    from aios_platform import telemetry
    from aios_platform.settings import settings

    telemetry.configure(settings().log_level)


Model = Annotated[str, typer.Argument(help="Name of a declared model; `aios models` lists them.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        help="The clock: look at nothing later than this date or time (ISO 8601, UTC). "
        "Default: now."
    ),
]


@app.command()
def run(model: Model, as_of: AsOf = None) -> None:
    """Bring a model up to date: ingest, train, promote, score, watch, until nothing is left to do.

    Safe to repeat: what is there and unchanged is not done again, and after a failure or a kill
    the same command goes on where it stopped.
    """
    from aios_platform import report
    from aios_platform.components.model_lifecycle import runner

    names = _names(model)
    clock = _clock(as_of)
    definitions, instance, store, database = _open()
    with instance:
        print(report.opening(names.declaration, clock), flush=True)
        begin = datetime.now(UTC)
        results = list(runner.run_until_done(names, definitions, instance, store, database, clock))
        seconds = (datetime.now(UTC) - begin).total_seconds()
    print(report.runs(results, seconds))
    print(report.status(names, store, database, clock))


@app.command()
def status(model: Model, as_of: AsOf = None) -> None:
    """Show where a model stands: windows, champion, last verdict, drift, performance, decisions."""
    from aios_platform import report
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.database import database
    from aios_platform.settings import settings

    names = _names(model)
    store = ArtifactStore(settings().artifact_root)
    print(report.status(names, store, database(), _clock(as_of)))


@app.command()
def models() -> None:
    """List the declared models."""
    from aios_platform.components.model_lifecycle.discovery import declared_models

    for name, names in declared_models().items():
        print(f"{name:24} {names.declaration.task:24} {names.declaration.owner}")


@app.command()
def ledger(
    model: Annotated[str | None, typer.Argument(help="Only rows about this model.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind, e.g. 'promotion'.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest rows first; at most this many.")] = 20,
    full: Annotated[bool, typer.Option(help="Print each row whole, as JSON lines.")] = False,
) -> None:
    """Show the ledger: every verdict, promotion and retrain decision, newest first."""
    from aios_platform.database import database
    from aios_platform.ledger.entries import entries

    for row in entries(database(), subject=model, kind=kind, limit=limit):
        if full:
            print(row.model_dump_json())
        else:
            print(f"{row.seq:6}  {row.recorded_at:%Y-%m-%d %H:%M:%S}  {row.actor:16} "
                  f"{row.subject:20} {row.kind:18} {_gist(row.payload)}")  # fmt: skip


@app.command()
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


@app.command()
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


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
)
def feast(context: typer.Context) -> None:
    """Run a Feast command on the feature repository, e.g. `aios feast feature-views list`."""
    import subprocess

    from aios_platform import services
    from aios_platform.database import database
    from aios_platform.settings import child_environment, settings

    code = subprocess.call(
        [str(Path(sys.executable).with_name("feast")), "-c", str(settings().feature_repo),
         *context.args],
        env=child_environment(services.environment(database())),
    )  # fmt: skip
    raise typer.Exit(code)


def main() -> None:
    """Entry point: our own errors become one readable line and exit status 1."""
    try:
        app()
    except AiosError as error:
        print(f"error: {error.what}", file=sys.stderr)
        if error.remedy:
            print(f"  try: {error.remedy}", file=sys.stderr)
        sys.exit(1)


def _names(model: str) -> "Names":
    from aios_platform.components.model_lifecycle.discovery import declared_model

    return declared_model(model)


def _clock(as_of: str | None) -> datetime:
    if as_of is None:
        return datetime.now(UTC)
    try:
        parsed = datetime.fromisoformat(as_of)
    except ValueError:
        raise typer.BadParameter(f"'{as_of}' is not a date or time in ISO 8601") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _gist(payload: dict[str, object]) -> str:
    for key in ("decision", "verdict", "champion"):
        part = payload.get(key)
        if isinstance(part, dict):
            parts = (part.get(k) for k in ("version", "candidate_version", "decision", "window",
                                           "action", "cause"))  # fmt: skip
            return " ".join(str(p) for p in parts if p is not None)
    return ""


def _open() -> tuple:  # type: ignore[type-arg]
    from aios_platform import services
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.database import database
    from aios_platform.settings import export, settings

    opened = database()
    variables = services.environment(opened)
    if opened.embedded:
        variables.pop("AIOS_DATABASE_URL")
    export(variables)

    import dagster as dg

    from aios_platform.definitions import defs

    return defs(), dg.DagsterInstance.get(), ArtifactStore(settings().artifact_root), opened
