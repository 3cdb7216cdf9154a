"""The flight-delay model on its flights several times over: what ten times the rows cost.

Everything else is the model's own: its SQL, its Feast repository, its declaration. A copy of a
flight has an id, an aircraft and a flight number of its own, and happens six seconds after the copy
before: it stays in its minute, and so in its month. That decides what the windows of the feature
SQL see:

- Keyed by aircraft or flight number: each copy is a fleet of its own. Rates and counts are those of
  the original, and the tables have as many times the rows. The register has the new aircraft, too.
- Keyed by carrier, airport or route: these stay, as a larger airport has more flights and hardly
  more airlines. Windows hold several times the landings with the same outcomes, so that rates stay
  what they were within seconds; counts (overdue flights, flights of a route) are several times as
  large, in training and in scoring alike. Without the six seconds all copies would land in one
  moment, of which the SQL keeps one row: those tables would not grow, and the join would be spared.
- Weather stays.

    TILES=10 AIOS_HOME=... python benchmarks/tiled_flights.py --to 2013-05
"""

import argparse
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pyarrow as pa
import yaml

from aios_platform.components.model_lifecycle.discovery import DEFS
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.contracts.windows import Window
from aios_platform.declarations import parse
from aios_platform.defs.flight_delay import source

FOLDER = DEFS / "flight_delay"
TILES = int(os.environ.get("TILES", "10"))
APART = timedelta(seconds=6)
TIMES = ["scheduled_at", "prediction_time", "departed_at", "landed_at"]


def read_window(window: Window) -> Mapping[str, pa.Table]:
    """The real window, each flight and aircraft several times."""
    import polars as pl

    def copied(table: pa.Table, copy: int, ids: list[str], times: list[str]) -> pa.Table:
        frame = pl.DataFrame(table).with_columns(
            *(pl.col(name) + pl.lit(f"~{copy}") for name in ids),
            *(pl.col(name) + copy * APART for name in times),
        )
        return frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(table.schema)

    tables = dict(source.read_window(window))
    for name, ids, times in [
        ("flights", ["flight_id", "tail_number", "flight_number"], TIMES),
        ("planes", ["tail_number"], []),
    ]:
        table = tables[name]
        copies = [copied(table, copy, ids, times) for copy in range(1, TILES)]
        tables[name] = pa.concat_tables([table, *copies]).combine_chunks()
    return tables


def names() -> Names:
    """The tiled model."""
    declared: dict[str, Any] = yaml.safe_load((FOLDER / "defs.yaml").read_text())["attributes"]
    declared["source"]["entrypoint"] = "tiled_flights:read_window"
    return Names(parse(declared, FOLDER / "defs.yaml"), FOLDER)


def main() -> None:
    """Replay the tiled model, without yardsticks."""
    from aios_platform.cli.arguments import code_location
    from aios_platform.components.model_lifecycle.component import lifecycle_definitions
    from aios_platform.replay import drive
    from aios_platform.resources.stores import Stores

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="first", default="2013-01")
    parser.add_argument("--to", dest="last", default="2013-12")
    options = parser.parse_args()
    _, instance, _, _ = code_location()

    import dagster as dg

    from aios_platform.defs.platform.resources import resources

    model, stores = names(), Stores()
    definitions = dg.Definitions.merge(lifecycle_definitions(model), resources())
    with instance:
        progress, moments = drive.begin(
            model, stores, options.first, options.last, yardsticks=False
        )
        for moment in drive.drive(model, definitions, instance, stores, progress, moments):
            print(f"{moment.tick.clock:%Y-%m-%d} {moment.seconds:.1f} s", flush=True)
            for result in moment.results:
                if result.failure:
                    raise SystemExit(result.failure)
                made = ", ".join(f"{s.name} {s.seconds:.1f}" for s in result.stages)
                print(f"  {result.run.job}: {made}", flush=True)


if __name__ == "__main__":
    main()
