"""The windows a run is about, and its clock, in the model's own terms."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from aios_platform.components.model_lifecycle.names import AS_OF_TAG, CAUSE_KEY_TAG
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window

if TYPE_CHECKING:
    from aios_platform.artifacts import ArtifactStore
    from aios_platform.components.model_lifecycle.names import Names

# A run's clock is set when it is asked for; one further back than any queue is a look at the past.
PRESENT = timedelta(days=1)


def windows_of(context: dg.AssetExecutionContext, declaration: ModelDeclaration) -> list[Window]:
    """The windows of a run's partition or range of partitions, oldest first."""
    return [declaration.windows.window(key) for key in context.partition_keys]


def delivered_windows(
    context: dg.AssetExecutionContext, names: "Names", store: "ArtifactStore"
) -> list[Window]:
    """Those of a run's windows that have rows; others did not come, and are asked for again."""
    there = set(store.keys(names.raw_rows))
    return [w for w in windows_of(context, names.declaration) if w.key in there]


def scored_windows(
    context: dg.AssetExecutionContext, names: "Names", store: "ArtifactStore"
) -> list[Window]:
    """Those of a run's windows that have predictions."""
    there = set(store.keys(names.predictions))
    return [w for w in windows_of(context, names.declaration) if w.key in there]


def span(context: dg.AssetExecutionContext) -> str:
    """The first and last window of a run, for people."""
    keys = context.partition_keys
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"


def clock_of(context: dg.AssetExecutionContext) -> datetime:
    """The run's clock: nothing that became known later is looked at. Default: now."""
    tag = context.run.tags.get(AS_OF_TAG)
    return datetime.fromisoformat(tag) if tag else datetime.now(UTC)


def past_clock(context: dg.AssetExecutionContext) -> datetime | None:
    """The run's clock where it looks at the past (a replay, `--as-of`); None: at the present."""
    clock = clock_of(context)
    return clock if datetime.now(UTC) - clock > PRESENT else None


def is_planned(context: dg.AssetExecutionContext) -> bool:
    """Whether the plan asked for the run; otherwise a person did, in Dagster's pages or by name."""
    return CAUSE_KEY_TAG in context.run.tags
