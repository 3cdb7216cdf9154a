"""The job that trains the live version again and compares, and the schedule that asks for it."""

import dagster as dg

from aios_platform.components.model_lifecycle.liveness import living_executor
from aios_platform.components.model_lifecycle.names import MODEL_TAG, Names
from aios_platform.components.model_lifecycle.principals import acting_for
from aios_platform.errors import LifecycleError
from aios_platform.resources.stores import Artifacts, Stores

CRON = "0 3 1 * *"


def reproduce_job(names: Names) -> dg.JobDefinition:
    """`<model>__reproduce`: what `aios reproduce` does, for the live version."""

    @dg.op(
        name=names.job("reproduce_champion"),
        pool="training",
        description="Trains the live version again from its record; the result is a row of the "
        "ledger. It fails where the version was not reproduced.",
    )
    def reproduce_champion(context: dg.OpExecutionContext, artifacts: Artifacts) -> None:
        with acting_for(context.run):
            row, seconds = reproduce_live(names, Stores(artifacts.open()))
        context.add_output_metadata({"ledger_row": row, "seconds": seconds})

    @dg.job(
        name=names.job("reproduce"),
        description="Train the live version again from its recorded windows, declaration and "
        "seed, and compare the answers. Nothing is registered or promoted.",
        tags={MODEL_TAG: names.model},
        executor_def=living_executor,
    )
    def reproduce() -> None:
        reproduce_champion()

    return reproduce


def reproduce_live(names: Names, stores: Stores) -> tuple[int, float]:
    """Train the live version again and note the result.

    Returns:
        The row of the ledger, and the seconds of training.

    Raises:
        LifecycleError: There is no live version, or it was not reproduced.
        AiosError: As `reproduction.reproduce`.
    """
    from aios_platform.components.model_lifecycle.reproduction import note_reproduction, reproduce
    from aios_platform.ledger.champions import champion_of

    champion = champion_of(stores.database, names.model)
    if champion is None:
        raise LifecycleError(
            f"{names.model} has no live version to train again.",
            remedy=f"Train one first: `aios run {names.model}`.",
        )
    found = reproduce(names, champion.version, stores)
    row = note_reproduction(stores.database, found)
    if not found.reproduced:
        differs = ", ".join(each.what for each in found.differences) or "nothing that is recorded"
        raise LifecycleError(
            f"Version {champion.version} of {names.model} was not reproduced: answers differ by "
            f"up to {found.largest_difference:.2g}, and what is not as it was: {differs}.",
            remedy=f"Row {row} of the ledger has the comparison (`aios explain {row}`); retrain "
            "where the data was delivered again.",
        )
    return row, found.seconds


def reproduce_schedule(names: Names, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """`<model>__reproduce_monthly`, which is started by hand: it costs a training each month."""
    return dg.ScheduleDefinition(
        name=names.job("reproduce_monthly"),
        job=job,
        cron_schedule=CRON,
        execution_timezone=names.declaration.windows.timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Trains the live version again on the first of each month. Off until it is "
        "started, since it costs a training.",
    )
