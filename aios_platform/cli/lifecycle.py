"""Commands that run and show models."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from aios_platform.cli.arguments import AsOf, Model, clock, code_location, names_of


def run(
    model: Model,
    as_of: AsOf = None,
    read_again: Annotated[
        list[str] | None,
        typer.Option(
            help="A window that was delivered again, mended or corrected: read it once more. "
            "May be repeated."
        ),
    ] = None,
) -> None:
    """Bring a model up to date: ingest, train, promote, score, watch, until nothing is left to do.

    Safe to repeat: what is there and unchanged is not done again, and after a failure or a kill
    the same command goes on where it stopped.
    """
    from aios_platform import report
    from aios_platform.components.model_lifecycle import deliveries, runner

    names = names_of(model)
    now = clock(as_of)
    definitions, instance, store, database = code_location()
    with instance:
        for key in read_again or []:
            deliveries.read_again(names, store, key, now)
        print(report.opening(names.declaration, now), flush=True)
        begin = datetime.now(UTC)
        results = list(runner.run_until_done(names, definitions, instance, store, database, now))
        seconds = (datetime.now(UTC) - begin).total_seconds()
    print(report.runs(results, seconds))
    print(report.status(names, store, database, now))


def backfill(
    model: Model,
    first: Annotated[str, typer.Option("--from", help="First window, e.g. 2013-03.")],
    last: Annotated[str, typer.Option("--to", help="Last window.")],
    version: Annotated[
        str | None,
        typer.Option(
            help="Version that scores them. Default: for each window the version that was live "
            "when it ended."
        ),
    ] = None,
    chunk: Annotated[int, typer.Option(min=1, help="Most windows of one Dagster run.")] = 12,
) -> None:
    """Score past windows again. Nothing is overwritten, no retraining is asked for.

    The new predictions are a version of their own beside the old, and the figures of the window
    are restated with their history. Killed at any point, the same command does what is left.
    """
    from aios_platform.components.model_lifecycle import backfilling

    names = names_of(model)
    definitions, instance, store, database = code_location()
    with instance:
        chunks = backfilling.plan_backfill(
            names, store, database, first, last, version=version, chunk=chunk
        )
        if not chunks:
            print("Nothing to do: these windows are scored by that version, and measured.")
            return
        left = sum(len(each.windows) for each in chunks)
        print(f"{names.model}: {left} windows in {len(chunks)} runs", flush=True)
        for done, stages in backfilling.backfill(names, definitions, instance, database, chunks):
            made = {stage.name: stage.summary for stage in stages if not stage.skipped}
            print(
                f"  {done.windows[0]} to {done.windows[-1]} by version {done.version}: "
                f"{made.get('performance', '')} ({sum(stage.seconds for stage in stages):.1f} s)",
                flush=True,
            )


def status(model: Model, as_of: AsOf = None) -> None:
    """Show where a model stands: windows, champion, last verdict, drift, performance, decisions."""
    from aios_platform import report
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.database import database
    from aios_platform.settings import settings

    names = names_of(model)
    store = ArtifactStore(settings().artifact_root)
    print(report.status(names, store, database(), clock(as_of)))


def models(
    changed: Annotated[
        Path | None,
        typer.Option(
            help="Only models that a change is about: a file of changed paths, one per line "
            "(`git diff --name-only`)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the names as JSON.")] = False,
) -> None:
    """List the declared models."""
    import json

    from aios_platform.components.model_lifecycle.discovery import (
        affected_models,
        declared_models,
    )

    found = declared_models()
    if changed is not None:
        lines = changed.read_text(encoding="utf-8").splitlines()
        found = {name: found[name] for name in affected_models(lines, found)}
    if as_json:
        print(json.dumps(list(found)))
        return
    for name, names in found.items():
        print(f"{name:24} {names.declaration.task:24} {names.declaration.owner}")
