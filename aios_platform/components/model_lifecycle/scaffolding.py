"""What `dg scaffold defs aios_platform.components.ModelLifecycle NAME` writes.

A declaration without attributes would keep the whole code location from loading. So it is proposed
from data, as `aios init` does.
"""

from contextlib import suppress

import click
import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from aios_platform.contracts.policy import Task
from aios_platform.contracts.windows import Every
from aios_platform.errors import AiosError, DeclarationError


class ProposalParameters(BaseModel):
    """Options of the command, those of `aios init` (its `--from` is `--data`)."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(description="Parquet or CSV file: a path or an fsspec URL.")
    label: str = Field(description="Column to predict.")
    time: str = Field(description="Column of the time of the prediction.")
    maturity_days: float = Field(
        ge=0, description="Days after that time until the label is known; 0: at once."
    )
    id: str | None = Field(default=None, description="Column that names a row.")
    windows: Every | None = Field(default=None, description="Length of a window.")
    task: Task | None = Field(default=None, description="Unset, what the label looks like.")
    timezone: str = Field(default="UTC", description="Zone of times written without one.")


class ModelScaffolder(dg.Scaffolder[ProposalParameters]):
    """Proposes a declaration from data; the folder is the model's name."""

    @classmethod
    def get_scaffold_params(cls) -> type[ProposalParameters]:
        """The options of the command."""
        return ProposalParameters

    def scaffold(self, request: dg.ScaffoldRequest[ProposalParameters]) -> None:
        """Write `defs.yaml` into the empty folder that Dagster has made; on an error remove both.

        Raises:
            ClickException: The data cannot be read, or no declaration be made of them; or another
                format or place was asked for.
        """
        try:
            self._write(request)
        except AiosError as error:
            with suppress(OSError):
                request.target_path.rmdir()
            raise click.ClickException(
                " ".join(part for part in (error.what, error.remedy) if part)
            ) from error

    def _write(self, request: dg.ScaffoldRequest[ProposalParameters]) -> None:
        from aios_platform.proposal.profile import profile_of
        from aios_platform.proposal.proposal import Wanted, propose
        from aios_platform.proposal.writing import write

        asked, place = request.params, request.target_path
        if request.scaffold_format != "yaml" or request.append:
            raise DeclarationError(
                "A model is declared by a defs.yaml in a folder of its own.",
                remedy="Leave out --format.",
            )
        wanted = Wanted(
            name=place.name, path=asked.data, label=asked.label, time=asked.time,
            maturity_days=asked.maturity_days, row_id=asked.id, every=asked.windows,
            task=asked.task, timezone=asked.timezone,
        )  # fmt: skip
        proposal = propose(profile_of(asked.data, asked.time, asked.timezone), wanted)
        write(proposal, place.parent)
        for warning in proposal.warnings:
            click.echo(f"  look at: {warning}")
        click.echo(f"Read {place / 'defs.yaml'}, set `owner`, then: aios run {place.name}")
