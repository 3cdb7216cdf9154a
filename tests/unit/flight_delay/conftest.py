"""Real flights of February and March, and the feature tables that their SQL makes of them."""

from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
import yaml

import aios_platform.defs.flight_delay as package
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.defs.flight_delay.source import read_window

FOLDER = Path(package.__file__).parent
SQL = {path.stem: path.read_text() for path in sorted((FOLDER / "features").glob("*.sql"))}


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


def run_sql(sql: str, tables: dict[str, pa.Table]) -> pl.DataFrame:
    """The rows that feature SQL makes of raw tables."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            connection.register(name, table)
        frame = pl.from_arrow(connection.sql(sql).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


@pytest.fixture(scope="session")
def made(raw: dict[str, pa.Table]) -> dict[str, pl.DataFrame]:
    return {name: run_sql(sql, raw) for name, sql in SQL.items()}
