"""`aios init`: a declaration proposed from data."""

import sys
from typing import Annotated, Literal

import click
import typer

from aios_platform.contracts.windows import Every


def init(
    name: Annotated[str, typer.Argument(help="Name of the model, e.g. churn.")],
    data: Annotated[
        str,
        typer.Option(
            "--from",
            help="Parquet or CSV file: a path or an fsspec URL; or the folder of a Delta table.",
        ),
    ],
    label: Annotated[str, typer.Option(help="Column to predict.")],
    time: Annotated[
        str, typer.Option(help="Column of the time at which a row's prediction is asked for.")
    ],
    maturity_days: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Days after that time until the label is known. Asked for where it is not given: "
            "nobody can tell from the data, and a model trained on labels that were not known yet "
            "is worth nothing.",
        ),
    ] = None,
    row_id: Annotated[
        str | None,
        typer.Option("--id", help="Column that names a row. Default: the row's number."),
    ] = None,
    windows: Annotated[
        Every | None,
        typer.Option(help="Length of a window. Default: the longest of which there are enough."),
    ] = None,
    task: Annotated[
        Literal["binary_classification", "multiclass_classification", "regression"] | None,
        typer.Option(help="Default: what the label looks like."),
    ] = None,
    timezone: Annotated[str, typer.Option(help="Zone of times that are written without one.")] = (
        "UTC"
    ),
) -> None:
    """Look at a file, and write a declaration that runs at once.

    Types, ranges, classes, windows and gate are proposed from the data, with warnings about what
    looks wrong. Nothing that exists is overwritten.
    """
    from aios_platform.components.model_lifecycle.discovery import DEFS
    from aios_platform.proposal.profile import profile_of
    from aios_platform.proposal.proposal import Wanted, propose
    from aios_platform.proposal.writing import write

    if maturity_days is None:
        maturity_days = _asked(label, time)
    wanted = Wanted(
        name=name, path=data, label=label, time=time, maturity_days=maturity_days, row_id=row_id,
        every=windows, task=task, timezone=timezone,
    )  # fmt: skip
    profile = profile_of(data, time, timezone)
    proposal = propose(profile, wanted)
    path = write(proposal, DEFS)
    first, last = proposal.windows[0], proposal.windows[-1]
    declared = proposal.declaration
    print(f"{path}: {declared.task.replace('_', ' ')} of '{label}', {profile.rows:,} rows in "
          f"{len(proposal.windows)} windows of a {declared.windows.every}, "
          f"{len(declared.features.request)} inputs.")  # fmt: skip
    for warning in proposal.warnings:
        print(f"  look at: {warning}")
    print("Read it, set `owner`, then:")
    print(f"  aios run {name}")
    print(f"  aios status {name}")
    print(f"  aios replay {name} --from {first} --to {last}")


def _asked(label: str, time: str) -> float:
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            f"how many days after '{time}' is '{label}' known? Nobody can tell from the data; "
            "0 where it is known at once",
            param_hint="--maturity-days",
        )
    question = f"How many days after '{time}' is '{label}' known?"
    return float(typer.prompt(question, type=click.FloatRange(min=0)))
