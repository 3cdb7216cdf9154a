"""The windows a run is about, in the model's own terms."""

from datetime import UTC, datetime

import dagster as dg

from aios_platform.components.model_lifecycle.names import AS_OF_TAG
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window


def windows_of(context: dg.AssetExecutionContext, declaration: ModelDeclaration) -> list[Window]:
    """The windows of a run's partition or range of partitions, oldest first."""
    return [declaration.windows.window(key) for key in context.partition_keys]


def span(context: dg.AssetExecutionContext) -> str:
    """The first and last window of a run, for people."""
    keys = context.partition_keys
    return keys[0] if len(keys) == 1 else f"{keys[0]} to {keys[-1]}"


def clock_of(context: dg.AssetExecutionContext) -> datetime:
    """The run's clock: nothing that became known later is looked at. Default: now."""
    tag = context.run.tags.get(AS_OF_TAG)
    return datetime.fromisoformat(tag) if tag else datetime.now(UTC)
