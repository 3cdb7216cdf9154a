"""Resources that every declared model shares, bound once."""

import dagster as dg

from aios_platform.components.model_lifecycle.liveness import living_executor
from aios_platform.resources.stores import Artifacts, Features, Ledger, Registry


@dg.definitions
def resources() -> dg.Definitions:
    """The stores, and the executor: one process per run, because imports cost more than steps."""
    return dg.Definitions(
        executor=living_executor,
        resources={
            "artifacts": Artifacts(),
            "ledger": Ledger(),
            "features": Features(),
            "registry": Registry(),
        },
    )
