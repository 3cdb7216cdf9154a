"""What one asset of a training run hands to the next: by run, never "the latest".

Each record lies under `runs/<run id>/` in the artifact root. A re-execution finds the records of
the run it repeats through Dagster's parent run; any other run finds nothing, and says so.
"""

from typing import TypeVar

import dagster as dg
from pydantic import Field

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.datasets import TrainingSet
from aios_platform.contracts.decisions import Verdict
from aios_platform.contracts.record import Record
from aios_platform.errors import LifecycleError


class Candidate(Record):
    """A trained and registered version that asks to become champion."""

    version: str
    run_id: str
    model_digest: str
    training_set_digest: str
    trained_through: str
    training_set: TrainingSet
    author: str = Field(default="", description="Principal that trained it; may not approve it.")
    onnx_parity: float | None = Field(
        default=None, description="Largest |ONNX - torch| over real rows when it was trained."
    )


class Judged(Record):
    """A verdict on the ledger, together with the candidate it is about."""

    verdict: Verdict
    candidate: Candidate
    ledger_row: int = Field(default=0, description="The verdict's row.")


R = TypeVar("R", bound=Record)


def hand_on(
    store: ArtifactStore, context: dg.AssetExecutionContext, name: str, record: Record
) -> None:
    """Leave a record for the assets downstream in the same run."""
    store.write_named(_name(context.run.run_id, name), record.model_dump_json(indent=1).encode())


def take(store: ArtifactStore, context: dg.AssetExecutionContext, name: str, kind: type[R]) -> R:
    """The record that an upstream asset of this run (or of the run it re-executes) left.

    Raises:
        LifecycleError: There is none.
    """
    run: dg.DagsterRun | None = context.run
    while run is not None:
        content = store.read_named(_name(run.run_id, name))
        if content is not None:
            return kind.model_validate_json(content)
        parent = run.parent_run_id
        run = context.instance.get_run_by_id(parent) if parent else None
    raise LifecycleError(
        f"This run has no '{name}' upstream of {context.asset_key.to_user_string()}.",
        remedy="Launch the whole retrain job, or re-execute a failed one from its failure; an "
        "asset never takes the newest record of some other run.",
    )


def _name(run_id: str, name: str) -> str:
    return f"runs/{run_id}/{name}.json"
