"""A shop: days of orders and a price list, delivered as Parquet files."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from aios_platform.data.ingest import IngestResult, ingest_window

INSTANT = pa.timestamp("us", tz="UTC")
DAY = datetime(2024, 3, 1, tzinfo=UTC)

SHOP = {
    "name": "returns",
    "owner": "team:shop",
    "windows": {"every": "day", "start": "2024-03-01"},
    "source": {
        "entrypoint": "shop_source:read",
        "rows": "orders",
        "prediction_time": "placed_at",
        "max_quarantine_share": 0.1,
        "tables": {
            "orders": {
                "row_id": ["order_id"],
                "timestamp": "placed_at",
                "min_rows": 5,
                "max_silence_hours": 12,
                "columns": {
                    "order_id": {"type": "string"},
                    "placed_at": {"type": "timestamp"},
                    "amount": {"type": "float", "min": 0, "max": 1000},
                    "items": {"type": "int", "min": 1},
                    "channel": {"type": "string", "values": ["web", "shop's"]},
                    "note": {"type": "string", "nullable": True},
                    "returned": {"type": "bool", "nullable": True, "known_at": "closed_at"},
                    "closed_at": {"type": "timestamp", "nullable": True, "known_at": "closed_at"},
                },
            },
            "prices": {
                "row_id": ["article", "country"],
                "volume_tolerance": None,
                "columns": {
                    "article": {"type": "string"},
                    "country": {"type": "string"},
                    "price": {"type": "float", "nullable": True},
                },
            },
        },
    },
    "features": {"service": "returns_v1"},
    "label": {"column": "returned", "known_at": "closed_at"},
}

SOURCE = """
from pathlib import Path
import pyarrow.parquet as pq

FOLDER = Path({folder!r})


def read(window):
    files = sorted((FOLDER / window.key).glob("*.parquet"))
    return {{file.stem: pq.read_table(file) for file in files}}


def break_down(window):
    raise ConnectionError("the shop is closed")


def nothing(window):
    return None


def numbers(window):
    return {{"orders": 7, "prices": 8}}
"""


def orders(day: datetime = DAY, rows: int = 40) -> pa.Table:
    """One day's good orders, half of them closed."""
    times = [day + timedelta(minutes=30 * i) for i in range(rows)]
    return pa.table(
        {
            "order_id": [f"{day:%d}-{i:03}" for i in range(rows)],
            "placed_at": pa.array(times, INSTANT),
            "amount": [10.0 + i for i in range(rows)],
            "items": pa.array([1 + i % 3 for i in range(rows)], pa.int64()),
            "channel": ["web" if i % 2 else "shop's" for i in range(rows)],
            "note": [None if i % 3 else f"note {i}" for i in range(rows)],
            "returned": pa.array([bool(i % 5 == 0) if i % 2 else None for i in range(rows)]),
            "closed_at": pa.array(
                [t + timedelta(days=2) if i % 2 else None for i, t in enumerate(times)], INSTANT
            ),
        }
    )


def prices() -> pa.Table:
    return pa.table(
        {
            "article": ["pen", "pen", "cup"],
            "country": ["nl", "de", "nl"],
            "price": [1.0, None, 7.5],
        }
    )


def with_values(table: pa.Table, column: str, values: Mapping[int, object]) -> pa.Table:
    """A table with some values of a column replaced."""
    field = table.schema.field(column)
    cells = table[column].to_pylist()
    for row, value in values.items():
        cells[row] = value
    place = table.column_names.index(column)
    return table.set_column(place, field, pa.array(cells, field.type))


class Shop:
    """A source of real files, and the store that they are ingested into."""

    def __init__(self, folder: Path, store: ArtifactStore) -> None:
        self.folder, self.store = folder, store
        self.declaration = ModelDeclaration.model_validate(SHOP)

    def declare(self, **source: object) -> None:
        """Change the declaration of the source."""
        self.declaration = ModelDeclaration.model_validate(
            {**SHOP, "source": {**SHOP["source"], **source}}
        )

    def window(self, key: str = "2024-03-01") -> Window:
        return self.declaration.windows.window(key)

    def deliver(self, key: str = "2024-03-01", **tables: pa.Table) -> None:
        """Put a delivery where the source finds it; a table of None is left out."""
        folder = self.folder / key
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in {"orders": orders(), "prices": prices(), **tables}.items():
            if table is None:
                (folder / f"{name}.parquet").unlink(missing_ok=True)
            else:
                pq.write_table(table, folder / f"{name}.parquet")

    def ingest(self, key: str = "2024-03-01", now: datetime | None = None) -> IngestResult:
        if now is None:
            return ingest_window(self.declaration, self.window(key), self.store)
        return ingest_window(self.declaration, self.window(key), self.store, clock=lambda: now)

    def raw(self, table: str = "orders", key: str = "2024-03-01") -> pa.Table:
        return self.store.read(self.store.require(f"returns/raw/{table}", key))

    def quarantine(self, table: str = "orders", key: str = "2024-03-01") -> pa.Table:
        return self.store.read(self.store.require(f"returns/quarantine/{table}", key))


@pytest.fixture
def shop(tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> Shop:
    folder = tmp_path / "deliveries"
    (tmp_path / "shop_source.py").write_text(SOURCE.format(folder=str(folder)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "shop_source", raising=False)
    return Shop(folder, store)
