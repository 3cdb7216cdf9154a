"""The command that runs schedules, sensors and the queue of runs."""

from pathlib import Path
from typing import Annotated

import typer


def daemon(
    workspace: Annotated[
        Path | None,
        typer.Option("-w", "--workspace", help="File that names the code locations.", exists=True),
    ] = None,
    again: Annotated[bool, typer.Option("--again", hidden=True)] = False,
) -> None:
    """Run schedules, sensors and the queue of runs until interrupted. `aios ui` starts it.

    One per installation: a second one stands by, and takes over when the first ends.
    """
    from aios_platform import services
    from aios_platform.daemon.scheduling import schedule, wait_for
    from aios_platform.settings import PROJECT_ROOT, export

    opened = wait_for(limit=float("inf") if again else 0.0)
    variables = services.environment(opened)
    if opened.embedded:
        variables.pop("AIOS_DATABASE_URL")
    export(variables)
    schedule(workspace or PROJECT_ROOT / "workspace.yaml")
