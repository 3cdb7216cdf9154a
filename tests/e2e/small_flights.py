"""The flight-delay model on a twentieth of its flights, six months of them: minutes, not hours.

Everything else is the model's own: its SQL, its Feast repository, its declaration but for the
sizes below.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
import yaml

from aios_platform.components.model_lifecycle.component import lifecycle_definitions
from aios_platform.components.model_lifecycle.discovery import DEFS, parse
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.windows import Window
from aios_platform.defs.flight_delay import source

KEEP_ONE_IN = 20
FOLDER = DEFS / "flight_delay"


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The real window, with every twentieth flight."""
    tables = dict(source.read_window(window))
    flights = tables["flights"]
    tables["flights"] = flights.take(pa.array(range(0, flights.num_rows, KEEP_ONE_IN)))
    return tables


def attributes(**changes: Any) -> dict[str, Any]:
    """The declaration's attributes, with these top-level parts changed."""
    declared = yaml.safe_load((FOLDER / "defs.yaml").read_text())["attributes"]
    declared["source"]["entrypoint"] = "tests.e2e.small_flights:read_window"
    declared["windows"]["end"] = "2013-07-01"
    declared["training"] = {"hidden": [16], "epochs": 2, "min_windows": 3, "batch_size": 512}
    declared["exam"] = {"windows": 2}
    declared["gate"] = {"floors": {"roc_auc": 0.55}, "min_rows": 200, "resamples": 200}
    declared["monitoring"] = {"report_rows": 500}
    return declared | changes


def names(**changes: Any) -> Names:
    """The small model."""
    return Names(parse(attributes(**changes), FOLDER / "defs.yaml"), FOLDER)


def definitions(model: Names) -> dg.Definitions:
    """The small model's definitions, with the platform's own resources."""
    from aios_platform.defs.platform.resources import resources

    return dg.Definitions.merge(lifecycle_definitions(model), resources())


@dg.definitions
def defs() -> dg.Definitions:
    """The code location that the daemon and the web server load."""
    return definitions(names())
