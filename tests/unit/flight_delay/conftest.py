"""Real flights of February and March, and the feature tables that their SQL makes of them."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import yaml

import aios_platform.defs.flight_delay as package
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from aios_platform.defs.flight_delay.source import read_window
from aios_platform.features.tables import FeatureEngine, FeatureQuery, feature_queries

FOLDER = Path(package.__file__).parent
SQL = {query.name: query.sql for query in feature_queries(FOLDER / "features")}
# A window of which no SQL can leave anything out.
ALWAYS = Window(
    key="always",
    start=datetime(1900, 1, 1, tzinfo=UTC),
    end=datetime(2100, 1, 1, tzinfo=UTC),
)


@pytest.fixture(scope="session")
def declaration() -> ModelDeclaration:
    content = yaml.safe_load((FOLDER / "defs.yaml").read_text())
    return ModelDeclaration.model_validate(content["attributes"])


@pytest.fixture(scope="session")
def raw(declaration: ModelDeclaration) -> dict[str, pa.Table]:
    """The last ten days of February and the first ten of March."""
    windows = [read_window(declaration.windows.window(key)) for key in ("2013-02", "2013-03")]
    tables = {name: pa.concat_tables([w[name] for w in windows]) for name in ("flights", "weather")}
    return {
        "flights": between(tables["flights"], "scheduled_at"),
        "weather": between(tables["weather"], "observed_at"),
        "planes": windows[1]["planes"],
    }


def between(table: pa.Table, column: str) -> pa.Table:
    utc = {"time_zone": "UTC"}
    inside = pl.col(column).is_between(
        pl.datetime(2013, 2, 18, 5, **utc), pl.datetime(2013, 3, 11, 4, **utc), closed="left"
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.filter(inside).to_arrow(compat_level=pl.CompatLevel.oldest())


def run_sql(name: str, tables: dict[str, pa.Table], window: Window = ALWAYS) -> pl.DataFrame:
    """The rows of a window that a feature table's SQL makes of raw tables."""
    with closing(FeatureEngine(tables, window)) as engine:
        frame = pl.from_arrow(engine.table(FeatureQuery(name, name, SQL[name])))
    assert isinstance(frame, pl.DataFrame)
    return frame


@pytest.fixture(scope="session")
def made(raw: dict[str, pa.Table]) -> dict[str, pl.DataFrame]:
    return {name: run_sql(name, raw) for name in SQL}
