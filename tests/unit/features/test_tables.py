"""Feature tables: from a model's SQL over windows of raw tables."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.contracts.windows import Window
from aios_platform.errors import ArtifactMissing, FeatureError
from aios_platform.features import tables as feature_tables
from aios_platform.features.tables import build_feature_tables, require_feature_tables

INSTANT = pa.timestamp("us", tz="UTC")
RATES = """
-- The share of late visits so far, at each moment at which an outcome becomes known.
SELECT shop, known_at AS event_timestamp, known_at AS created_timestamp,
    avg(late::INT) OVER (PARTITION BY shop ORDER BY known_at)::FLOAT AS late_rate,
    count(*) OVER (PARTITION BY shop ORDER BY known_at) AS visits
FROM visits WHERE late IS NOT NULL
"""


def day(number: int, hour: float = 0) -> datetime:
    return datetime(2024, 1, number, tzinfo=UTC) + timedelta(hours=hour)


@pytest.fixture
def declaration() -> ModelDeclaration:
    timestamp = {"type": "timestamp"}
    visits: dict[str, Any] = {
        "id": {"type": "string"},
        "at": timestamp,
        "asked_at": timestamp,
        "shop": {"type": "string", "nullable": True},
        "late": {"type": "bool", "nullable": True, "known_at": "known_at"},
        "known_at": {"type": "timestamp", "nullable": True},
    }
    tables = {
        "visits": {"columns": visits, "row_id": ["id"], "timestamp": "at"},
        "shops": {"columns": {"shop": {"type": "string"}, "size": {"type": "int"}}},
    }
    source = {"entrypoint": "a:b", "tables": tables, "rows": "visits"}
    return ModelDeclaration.model_validate(
        {
            "name": "visits",
            "owner": "team:tests",
            "windows": {"every": "day", "start": "2024-01-01"},
            "source": source | {"prediction_time": "asked_at"},
            "features": {"service": "v1", "lookback_windows": 1},
            "label": {"column": "late", "known_at": "known_at"},
        }
    )


def deliver(store: ArtifactStore, number: int, *visits: tuple[str | None, float, float]) -> None:
    """Visits (shop, hour, hour at which the outcome was known) of one day; odd hours are late."""
    store.write(
        "visits/raw/visits",
        f"2024-01-{number:02d}",
        pa.table(
            {
                "id": [f"{number}-{place}" for place in range(len(visits))],
                "at": pa.array([day(number, v[1]) for v in visits], INSTANT),
                "asked_at": pa.array([day(number, v[1] - 1) for v in visits], INSTANT),
                "shop": pa.array([v[0] for v in visits], pa.large_string()),
                "late": [int(v[1]) % 2 == 1 for v in visits],
                "known_at": pa.array([day(number, v[2]) for v in visits], INSTANT),
            }
        ),
    )
    sizes = pa.table({"shop": ["a", "b"], "size": [number, 10 * number]})
    store.write("visits/raw/shops", f"2024-01-{number:02d}", sizes)


@pytest.fixture
def sql(tmp_path: Path) -> Path:
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "rates.sql").write_text(RATES)
    return folder


def window(declaration: ModelDeclaration, number: int) -> Window:
    return declaration.windows.window(f"2024-01-{number:02d}")


def build(declaration: ModelDeclaration, sql: Path, number: int, store: ArtifactStore) -> Any:
    return build_feature_tables(declaration, sql, window(declaration, number), store)


def test_each_event_is_written_by_the_window_it_lies_in(
    declaration: ModelDeclaration, sql: Path, store: ArtifactStore
) -> None:
    deliver(store, 1, ("a", 9, 10), ("a", 22, 26), (None, 3, 4))
    deliver(store, 2, ("a", 8, 9))
    [first] = build(declaration, sql, 1, store)
    [second] = build(declaration, sql, 2, store)
    assert store.read(first).to_pylist() == [
        {
            "shop": "a",
            "event_timestamp": day(1, 10),
            "created_timestamp": day(1, 10),
            "late_rate": 1.0,
            "visits": 1,
        }
    ]
    rows = store.read(second).to_pylist()
    assert [(r["event_timestamp"], r["late_rate"], r["visits"]) for r in rows] == [
        (day(2, 2), 0.5, 2),
        (day(2, 9), pytest.approx(1 / 3), 3),
    ]
    assert store.scan([second]).schema.field("event_timestamp").type == INSTANT


def test_unchanged_inputs_make_nothing_and_changed_ones_a_new_version(
    declaration: ModelDeclaration, sql: Path, store: ArtifactStore
) -> None:
    deliver(store, 1, ("a", 9, 10))
    deliver(store, 2, ("a", 8, 9))
    [first] = build(declaration, sql, 2, store)
    assert build(declaration, sql, 2, store) == [first]
    deliver(store, 1, ("a", 9, 10), ("a", 10, 11))  # the lookback was delivered again
    [second] = build(declaration, sql, 2, store)
    assert (second.version, second.digest != first.digest) == (2, True)
    (sql / "rates.sql").write_text(RATES.replace("avg(late::INT)", "1 - avg(late::INT)"))
    [third] = build(declaration, sql, 2, store)
    assert third.version == 3
    assert [v.key for v in require_feature_tables(declaration, sql, ["2024-01-02"], store)] == [
        "2024-01-02"
    ]
    with pytest.raises(ArtifactMissing, match="'rates' of 'visits' lacks 2024-01-05"):
        require_feature_tables(declaration, sql, ["2024-01-05"], store)


def test_a_snapshot_is_the_windows_own(
    declaration: ModelDeclaration, sql: Path, store: ArtifactStore
) -> None:
    start = "TIMESTAMPTZ '2024-01-02 00:00:00+00'"
    (sql / "rates.sql").write_text(
        f"SELECT shop, {start} AS event_timestamp, {start} AS created_timestamp, size FROM shops"
    )
    deliver(store, 1, ("a", 9, 10))
    deliver(store, 2, ("a", 8, 9))
    [made] = build(declaration, sql, 2, store)
    assert store.read(made)["size"].to_pylist() == [2, 20]


def test_a_time_without_a_zone_is_in_utc_wherever_the_machine_stands(
    declaration: ModelDeclaration, sql: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    noon = "'2024-01-01 12:00:00'::TIMESTAMPTZ"
    (sql / "rates.sql").write_text(
        f"SELECT shop, {noon} AS event_timestamp, {noon} AS created_timestamp, size FROM shops"
    )
    deliver(store, 1, ("a", 9, 10))
    [made] = build(declaration, sql, 1, store)
    assert store.read(made)["event_timestamp"].to_pylist() == [day(1, 12)] * 2


def test_a_window_that_was_not_ingested_is_named(
    declaration: ModelDeclaration, sql: Path, store: ArtifactStore
) -> None:
    with pytest.raises(ArtifactMissing, match="'visits/raw/visits' has no version for"):
        build(declaration, sql, 1, store)


T = "known_at AS event_timestamp, known_at AS created_timestamp"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT shopp FROM visits", r"rates\.sql does not run: .*shopp"),
        ("SELECT shop, late FROM visits", "gives no column event_timestamp"),
        (
            "SELECT shop, known_at::DATE AS event_timestamp, "
            "known_at AS created_timestamp FROM visits",
            "a moment in microseconds is needed",
        ),
        (
            "SELECT shop, known_at AS event_timestamp, 1 AS n, "
            "known_at AS created_timestamp FROM visits",
            "created_timestamp does not follow event_timestamp",
        ),
        (f"SELECT shop, {T}, sum(1::HUGEINT) AS n FROM visits GROUP BY ALL", "type decimal"),
        (f"SELECT shop, {T}, [1] AS n FROM visits", "which no model takes"),
        (
            f"SELECT shop, {T}, 1 AS n FROM visits UNION ALL SELECT shop, {T}, 2 FROM visits",
            r"several rows for \('a', .*Aggregate to one row",
        ),
        (
            "SELECT shop, known_at AS event_timestamp, known_at - INTERVAL 1 HOUR AS "
            "created_timestamp, 1 AS n FROM visits",
            "1 of 1 rows have a created_timestamp before",
        ),
        (
            "SELECT shop, known_at AS event_timestamp, NULL::TIMESTAMPTZ AS created_timestamp, "
            "1 AS n FROM visits",
            "1 of 1 rows have no created_timestamp",
        ),
        (
            "SELECT shop, NULL::TIMESTAMPTZ AS event_timestamp, known_at AS created_timestamp, "
            "1 AS n FROM visits",
            "1 of 1 rows have no event_timestamp",
        ),
        (f"SELECT shop, {T}, 1 AS n FROM '/etc/hostname'", "does not run"),
    ],
)
def test_what_is_no_feature_table_is_refused(
    declaration: ModelDeclaration, sql: Path, store: ArtifactStore, query: str, message: str
) -> None:
    deliver(store, 1, ("a", 9, 10))
    (sql / "rates.sql").write_text(query)
    with pytest.raises(FeatureError, match=message):
        build(declaration, sql, 1, store)
    assert store.current("visits/features/rates", "2024-01-01") is None


@pytest.mark.parametrize("place", [0, 2046, 2047, 2048, 6000])
def test_a_repeated_row_is_found_wherever_the_batches_are_cut(
    declaration: ModelDeclaration,
    sql: Path,
    store: ArtifactStore,
    monkeypatch: pytest.MonkeyPatch,
    place: int,
) -> None:
    monkeypatch.setattr(feature_tables, "ROW_GROUP_ROWS", 2048)
    deliver(store, 1, ("a", 9, 10))
    (sql / "rates.sql").write_text(
        f"SELECT 'a' AS shop, window_start() + to_microseconds(n - (n > {place})::INT) "
        "AS event_timestamp, event_timestamp AS created_timestamp, n FROM range(7000) AS numbers(n)"
    )
    with pytest.raises(FeatureError, match=rf"several rows for \('a', .*{place or ''}"):
        build(declaration, sql, 1, store)
    assert store.current("visits/features/rates", "2024-01-01") is None
