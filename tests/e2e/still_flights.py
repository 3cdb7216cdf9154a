"""The small model as a code location in which only what a person asks for is done."""

import dagster as dg

from tests.e2e import small_flights


@dg.definitions
def defs() -> dg.Definitions:
    """The small model without its sensors and schedules."""
    whole = small_flights.definitions(small_flights.names())
    return dg.Definitions(
        assets=whole.assets,
        asset_checks=whole.asset_checks,
        jobs=whole.jobs,
        resources=whole.resources,
    )
