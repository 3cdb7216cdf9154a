"""Arguments that several commands share, and what they open."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import dagster as dg

    from aios_platform.artifacts import ArtifactStore
    from aios_platform.components.model_lifecycle.names import Names
    from aios_platform.database import Database


Model = Annotated[str, typer.Argument(help="Name of a declared model; `aios models` lists them.")]
AsOf = Annotated[
    str | None,
    typer.Option(
        help="The clock: look at nothing later than this date or time (ISO 8601, UTC). "
        "Default: now."
    ),
]


def names_of(model: str) -> "Names":
    """The declared model of this name.

    Raises:
        DeclarationError: There is none, or its declaration is wrong.
    """
    from aios_platform.components.model_lifecycle.discovery import declared_model

    return declared_model(model)


def clock(as_of: str | None) -> datetime:
    """The moment that `--as-of` names; now where it is not given."""
    if as_of is None:
        return datetime.now(UTC)
    try:
        parsed = datetime.fromisoformat(as_of)
    except ValueError:
        raise typer.BadParameter(f"'{as_of}' is not a date or time in ISO 8601") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def code_location() -> "tuple[dg.Definitions, dg.DagsterInstance, ArtifactStore, Database]":
    """The loaded definitions, Dagster's instance, the artifact root and the database."""
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
