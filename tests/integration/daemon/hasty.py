"""The small flight model as a code location whose sensors look as often as Dagster lets them."""

import dagster as dg

from aios_platform.components.model_lifecycle import sensors
from tests.e2e import small_flights


@dg.definitions
def defs() -> dg.Definitions:
    sensors.LOOK_SECONDS = 5
    return small_flights.definitions(small_flights.names())
