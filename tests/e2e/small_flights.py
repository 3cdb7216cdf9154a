"""The flight-delay model on a twentieth of its flights: minutes, not hours.

Everything else is the model's own: its SQL, its Feast repository, its declaration but for the
sizes below. What the source delivers can be disturbed, window by window (`UPSET`).
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from aios_platform.components.model_lifecycle.component import lifecycle_definitions
from aios_platform.components.model_lifecycle.discovery import DEFS
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.windows import Window
from aios_platform.declarations import parse
from aios_platform.defs.flight_delay import source
from aios_platform.errors import WindowNotDelivered

KEEP_ONE_IN = 20
FOLDER = DEFS / "flight_delay"
Tables = dict[str, pa.Table]
UPSET: dict[str, Callable[[Tables], Tables]] = {}
"""What happens to the delivery of a window, by its key; tests set and remove entries."""


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The real window, with every twentieth flight and the aircraft that fly them."""
    tables = dict(source.read_window(window))
    flights = tables["flights"]
    tables["flights"] = flights = flights.take(pa.array(range(0, flights.num_rows, KEEP_ONE_IN)))
    flying = pc.is_in(tables["planes"]["tail_number"], flights["tail_number"].combine_chunks())
    tables["planes"] = tables["planes"].filter(flying)
    return UPSET[window.key](tables) if window.key in UPSET else tables


def attributes(**changes: Any) -> dict[str, Any]:
    """The declaration's attributes, with these top-level parts changed."""
    declared = yaml.safe_load((FOLDER / "defs.yaml").read_text())["attributes"]
    declared["source"]["entrypoint"] = "tests.e2e.small_flights:read_window"
    declared["source"]["tables"]["planes"]["min_rows"] = 100
    declared["source"]["tables"]["flights"]["min_rows"] = 500
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


# Ways to disturb a delivery.


def not_there(tables: Tables) -> Tables:
    """The window does not come."""
    raise WindowNotDelivered("the vendor has not delivered it", remedy="Wait.")


def without_carrier(tables: Tables) -> Tables:
    """A declared column is missing: the window is refused."""
    return tables | {"flights": tables["flights"].drop_columns(["carrier"])}


def in_kilometres(tables: Tables) -> Tables:
    """Distances in another unit."""
    return _changed(tables, "distance", lambda miles: pc.multiply(miles, 1.609344))


def nearly_halved(tables: Tables) -> Tables:
    """Nine of twenty rows are lost: more, and the window would be refused."""
    flights = tables["flights"]
    return tables | {"flights": flights.filter(pa.array(n % 20 < 11 for n in _rows(flights)))}


def a_third_twice(tables: Tables) -> Tables:
    """Every third row is there twice, under another id."""
    flights = tables["flights"]
    again = flights.filter(pa.array(n % 3 == 0 for n in _rows(flights)))
    ids = pa.array([f"{key}-again" for key in again["flight_id"].to_pylist()], pa.large_string())
    place = again.schema.get_field_index("flight_id")
    again = again.set_column(place, again.schema.field(place), ids.cast(again.field(place).type))
    return tables | {"flights": pa.concat_tables([flights, again])}


def minutes_shifted(tables: Tables) -> Tables:
    """The scheduled minutes slipped down by some rows: each flight has those of another."""

    def slipped(minutes: pa.ChunkedArray) -> pa.ChunkedArray:
        return pa.chunked_array([*minutes[100:].chunks, *minutes[:100].chunks])

    return _changed(tables, "scheduled_minutes", slipped)


def labels_later(days: int) -> Callable[[Tables], Tables]:
    """Landings become known only so many days later."""

    def later(tables: Tables) -> Tables:
        delay = pa.scalar(timedelta(days=days), pa.duration("us"))
        return _changed(tables, "landed_at", lambda landed: pc.add(landed, delay))

    return later


def without_labels(tables: Tables) -> Tables:
    """Nobody says which flights were late, although when they landed is told."""
    return _changed(tables, "is_late", lambda late: pa.nulls(len(late), late.type))


def labels_turned(every: int) -> Callable[[Tables], Tables]:
    """Of every so-many-th flight the opposite is told."""

    def turned(tables: Tables) -> Tables:
        chosen = pa.array(n % every == 0 for n in _rows(tables["flights"]))
        return _changed(tables, "is_late", lambda late: pc.if_else(chosen, pc.invert(late), late))

    return turned


def wrong_labels(tables: Tables) -> Tables:
    """Five flights told both ways, four that nobody knows, three that landed before they flew."""
    flights = tables["flights"]
    known = flights.filter(pc.is_valid(flights["is_late"]))
    both = labels_turned(every=1)({"flights": known[:5]})["flights"]
    unknown = known[5:9]
    place = unknown.schema.get_field_index("flight_id")
    ids = pa.array([f"nobody-{n}" for n in _rows(unknown)], known["flight_id"].type)
    unknown = unknown.set_column(place, "flight_id", ids)
    premature = pc.is_in(flights["flight_id"], known["flight_id"][10:13].combine_chunks())
    early = pc.if_else(premature, flights["prediction_time"], flights["landed_at"])
    changed = _changed(tables, "landed_at", lambda _: early)
    return changed | {"flights": pa.concat_tables([changed["flights"], both, unknown])}


def _changed(
    tables: Tables, column: str, change: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> Tables:
    flights = tables["flights"]
    place = flights.schema.get_field_index(column)
    return tables | {"flights": flights.set_column(place, column, change(flights[column]))}


def _rows(table: pa.Table) -> range:
    return range(table.num_rows)
