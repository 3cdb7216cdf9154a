"""Feast's promises for historical retrieval, in our words, on our store; and what we add."""

import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios_platform.artifacts import ArtifactStore
from aios_platform.errors import ArtifactMissing, FeatureError
from tests.unit.features.conftest import at

pytestmark = pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning")
Make = Callable[..., Any]


def source(path: Path | str, **options: Any) -> Any:
    from feast import FileSource

    options = {
        "timestamp_field": "event_timestamp",
        "created_timestamp_column": "created",
    } | options
    return FileSource(name=f"source of {options.pop('name', path)}", path=str(path), **options)


def view(name: str, data: Any, features: dict[str, Any], **options: Any) -> Any:
    from feast import FeatureView, Field

    options = {"entities": [driver()], "ttl": timedelta(hours=10)} | options
    fields = [Field(name=n, dtype=t) for n, t in features.items()]
    return FeatureView(name=name, schema=fields, source=data, **options)


def driver() -> Any:
    from feast import Entity, ValueType

    return Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)


def customer() -> Any:
    from feast import Entity, ValueType

    return Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)


@pytest.fixture
def drivers(tmp_path: Path) -> Path:
    """Rows of two drivers; the second row of driver 1 is known two hours late."""
    path = tmp_path / "drivers.parquet"
    pq.write_table(
        pa.table(
            {
                "driver_id": pa.array([1, 1, 2, 1], pa.int64()),
                "event_timestamp": [at(1), at(3), at(2), at(20)],
                "created": [at(1), at(5), at(2), at(20)],
                "trips": pa.array([10, 11, None, 12], pa.int32()),
                "rate": [0.1, 0.2, 0.3, 0.4],
                "city": ["Ulm", None, "Bonn", "Köln"],
            }
        ),
        path,
    )
    return path


@pytest.fixture
def stats(drivers: Path) -> Any:
    from feast.types import Float64, Int32, String

    return view("stats", source(drivers), {"trips": Int32, "rate": Float64, "city": String})


def entity_rows(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


def test_each_row_sees_the_newest_value_known_by_its_time(feast_store: Make, stats: Any) -> None:
    store = feast_store(driver(), stats)
    asked = entity_rows(
        driver_id=[1, 1, 1, 1, 2, 3],
        event_timestamp=[at(4), at(5), at(0.5), at(13.5), at(12), at(2)],
        label=list("abcdef"),
    )
    found = store.get_historical_features(asked, ["stats:trips", "stats:city"]).to_arrow()
    assert found["trips"].to_pylist() == [10, 11, None, None, None, None]
    assert found["city"].to_pylist() == ["Ulm", None, None, None, "Bonn", None]
    assert found["label"].to_pylist() == list("abcdef")
    assert found.schema.field("trips").type == pa.int32()


def test_the_age_limit_is_inclusive_and_may_be_absent(feast_store: Make, stats: Any) -> None:
    asked = entity_rows(driver_id=[2, 2], event_timestamp=[at(12), at(12) + timedelta(seconds=1)])
    store = feast_store(driver(), stats)
    assert store.get_historical_features(asked, ["stats:rate"]).to_arrow()["rate"].to_pylist() == [
        pytest.approx(0.3),
        None,
    ]
    stats.ttl = timedelta(0)
    store = feast_store(driver(), stats)
    later = entity_rows(driver_id=[2], event_timestamp=[at(10_000)])
    found = store.get_historical_features(later, ["stats:city"]).to_arrow()
    assert found["city"].to_pylist() == ["Bonn"]


def test_backfills_stay_hidden_unless_the_store_is_told_otherwise(
    feast_store: Make, stats: Any
) -> None:
    asked = entity_rows(driver_id=[1], event_timestamp=[at(4)])
    trips = ["stats:trips"]
    hidden = feast_store(driver(), stats)
    assert hidden.get_historical_features(asked, trips).to_arrow()["trips"].to_pylist() == [10]
    shown = feast_store(driver(), stats, filter_by_created_timestamp=False)
    assert shown.get_historical_features(asked, trips).to_arrow()["trips"].to_pylist() == [11]
    strict = shown.get_historical_features(asked, trips, filter_by_created_timestamp=True)
    assert strict.to_arrow()["trips"].to_pylist() == [10]


def test_rows_in_are_rows_out_in_their_order(feast_store: Make, stats: Any) -> None:
    store = feast_store(driver(), stats)
    asked = entity_rows(
        driver_id=pd.array([2, 1, None, 1, 1, 2], dtype="Int64"),
        event_timestamp=[at(3), at(9), at(3), at(9), at(2), at(3)],
        n=range(6),
    )
    asked.index = pd.Index([5, 5, 5, 1, 1, 1])
    found = store.get_historical_features(asked, ["stats:rate"]).to_df()
    assert found["n"].tolist() == list(range(6))
    assert found["rate"].round(3).fillna(-1).tolist() == [0.3, 0.2, -1, 0.2, 0.1, 0.3]
    assert found["driver_id"].isna().tolist() == [False, False, True, False, False, False]


def test_no_entity_rows_give_no_rows_with_the_right_types(feast_store: Make, stats: Any) -> None:
    store = feast_store(driver(), stats)
    empty = pa.schema([("driver_id", pa.int64()), ("event_timestamp", pa.timestamp("us"))])
    found = store.get_historical_features(empty.empty_table(), ["stats:trips"]).to_arrow()
    assert found.num_rows == 0
    assert found.schema.field("trips").type == pa.int32()


def test_integers_with_gaps_stay_integers(feast_store: Make, tmp_path: Path) -> None:
    from feast.types import Int64

    big = 2**53 + 1
    table = pa.table({"driver_id": [1], "event_timestamp": [at(0)], "created": [at(0)], "n": [big]})
    pq.write_table(table, tmp_path / "big.parquet")
    store = feast_store(driver(), view("big", source(tmp_path / "big.parquet"), {"n": Int64}))
    asked = entity_rows(driver_id=[1, 2], event_timestamp=[at(1), at(1)])
    job = store.get_historical_features(asked, ["big:n"])
    assert job.to_arrow()["n"].to_pylist() == [big, None]
    frame = job.to_df()
    assert str(frame["n"].dtype) == "Int64"
    assert frame["n"][0] == big
    assert frame["n"].isna().tolist() == [False, True]


def test_features_may_have_any_name_and_type(feast_store: Make, tmp_path: Path) -> None:
    from feast.types import Array, Bool, Float64, String, UnixTimestamp

    columns: dict[str, Any] = {
        "rate_y": (Float64, pa.array([1.5])),
        "select": (String, pa.array(["x"]).dictionary_encode()),
        "a.b c": (Bool, pa.array([True])),
        'quo"te': (Array(Float64), pa.array([[1.0, 2.0]])),
        "position": (Float64, pa.array([2.5])),
        "k0": (UnixTimestamp, pa.array([at(7)], pa.timestamp("us", tz="UTC"))),
        "row": (Float64, pa.array([float("nan")])),
    }
    keys = {"driver_id": [1], "event_timestamp": [at(0)], "created": [at(0)]}
    pq.write_table(pa.table(keys | {n: v for n, (_, v) in columns.items()}), tmp_path / "n.parquet")
    odd = view("odd", source(tmp_path / "n.parquet"), {n: t for n, (t, _) in columns.items()})
    store = feast_store(driver(), odd)
    asked = pa.table({"driver_id": [1, 9], "event_timestamp": [at(1), at(1)]})
    found = store.get_historical_features(asked, [f"odd:{n}" for n in columns]).to_arrow()
    for name, (_, values) in columns.items():
        assert found[name].type == values.type
        assert str(found[name][0].as_py()) == str(values[0].as_py())
        assert found[name][1].as_py() is None


def test_equal_names_in_two_views_need_full_names(feast_store: Make, drivers: Path) -> None:
    from feast.types import Float64, Int32

    first = view("first", source(drivers), {"trips": Int32, "rate": Float64})
    second = view("second", source(drivers, name="b"), {"trips": Int32}, ttl=timedelta(hours=1))
    store = feast_store(driver(), first, second)
    asked = entity_rows(driver_id=[1], event_timestamp=[at(2.5)])
    found = store.get_historical_features(
        asked, ["first:trips", "second:trips", "first:rate"], full_feature_names=True
    ).to_arrow()
    assert found.column_names == [
        *asked.columns, "first__trips", "first__rate", "second__trips",
    ]  # fmt: skip
    assert found["first__trips"].to_pylist() == [10]
    assert found["second__trips"].to_pylist() == [None]
    with pytest.raises(Exception, match="trips"):
        store.get_historical_features(asked, ["first:trips", "second:trips"])
    with pytest.raises(FeatureError, match="'rate' of 'first' has the name of a column"):
        store.get_historical_features(asked.assign(rate=1), ["first:rate"])


def test_composite_keys_match_as_a_whole(feast_store: Make, tmp_path: Path) -> None:
    from feast.types import Int64

    pq.write_table(
        pa.table(
            {
                "driver_id": [1, 1, 2, 1],
                "customer_id": ["x", "y", "x", None],
                "event_timestamp": [at(1)] * 4,
                "created": [at(1)] * 4,
                "orders": [1, 2, 3, 4],
            }
        ),
        tmp_path / "orders.parquet",
    )
    orders = view(
        "orders",
        source(tmp_path / "orders.parquet"),
        {"orders": Int64},
        entities=[driver(), customer()],
    )
    store = feast_store(driver(), customer(), orders)
    asked = pa.table(
        {
            "driver_id": [1, 1, 2, 2, 1],
            "customer_id": ["x", "y", "x", "y", None],
            "event_timestamp": [at(2)] * 5,
        }
    )
    found = store.get_historical_features(asked, ["orders:orders"]).to_arrow()
    assert found["orders"].to_pylist() == [1, 2, 3, None, None]


def test_one_view_may_be_joined_twice_under_other_names(feast_store: Make, stats: Any) -> None:
    store = feast_store(driver(), stats)
    from feast import FeatureService

    service = FeatureService(
        name="pair",
        features=[
            stats[["rate"]].with_name("mine").with_join_key_map({"driver_id": "my_id"}),
            stats[["rate"]].with_name("yours").with_join_key_map({"driver_id": "your_id"}),
        ],
    )
    store.apply([driver(), stats, service])
    asked = entity_rows(my_id=[1, 2], your_id=[2, 1], event_timestamp=[at(2), at(3)])
    found = store.get_historical_features(asked, service, full_feature_names=True).to_df()
    assert found["mine__rate"].round(2).tolist() == [0.1, 0.3]
    assert found["yours__rate"].round(2).tolist() == [0.3, 0.1]


def test_columns_of_the_source_may_have_other_names(feast_store: Make, tmp_path: Path) -> None:
    from feast.types import Int64

    pq.write_table(
        pa.table({"id": [1], "when": [at(1)], "made": [at(1)], "n": [5]}), tmp_path / "m.parquet"
    )
    mapped = source(
        tmp_path / "m.parquet",
        timestamp_field="when",
        created_timestamp_column="made",
        field_mapping={"id": "driver_id", "n": "trips"},
    )
    store = feast_store(driver(), view("mapped", mapped, {"trips": Int64}))
    asked = entity_rows(driver_id=[1], event_timestamp=[at(2)])
    assert store.get_historical_features(asked, ["mapped:trips"]).to_arrow()[
        "trips"
    ].to_pylist() == [5]


def test_a_view_without_entities_serves_every_row(feast_store: Make, drivers: Path) -> None:
    from feast.types import Float64

    everyone = view("everyone", source(drivers), {"rate": Float64}, entities=[])
    store = feast_store(everyone)
    asked = entity_rows(event_timestamp=[at(1.5), at(2.5), at(0)])
    found = store.get_historical_features(asked, ["everyone:rate"]).to_df()
    assert found["rate"].round(2).fillna(-1).tolist() == [0.1, 0.3, -1]


def test_times_may_be_naive_or_of_any_zone_and_column(feast_store: Make, stats: Any) -> None:
    store = feast_store(driver(), stats)
    tokyo = at(2).astimezone(ZoneInfo("Asia/Tokyo"))
    for column, moment in [("event_timestamp", at(2).replace(tzinfo=None)), ("when", tokyo)]:
        asked = entity_rows(driver_id=[1], **{column: [moment]})
        found = store.get_historical_features(asked, ["stats:rate"]).to_arrow()
        assert found["rate"].to_pylist() == [pytest.approx(0.1)]


def test_on_demand_features_are_computed_on_the_joined_rows(feast_store: Make, stats: Any) -> None:
    from feast import Field, RequestSource
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64

    request = RequestSource(name="request", schema=[Field(name="bonus", dtype=Float64)])

    @on_demand_feature_view(
        sources=[stats, request], schema=[Field(name="pay", dtype=Float64)], mode="python"
    )
    def payment(inputs: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(inputs["rate"], inputs["bonus"], strict=True)
        return {"pay": [None if r is None else r * 100 + b for r, b in pairs]}

    store = feast_store(driver(), stats, payment)
    asked = entity_rows(driver_id=[1, 2], event_timestamp=[at(2), at(2)], bonus=[1.0, 2.0])
    job = store.get_historical_features(asked, ["payment:pay"])
    assert job.to_arrow()["pay"].to_pylist() == [
        pytest.approx(11, abs=1e-4),
        pytest.approx(32, abs=1e-4),
    ]
    parts = [t["pay"].to_pylist() for t in job.to_arrow_batches(1)]
    assert [len(p) for p in parts] == [1, 1]
    with pytest.raises(Exception, match="bonus"):
        store.get_historical_features(asked.drop(columns="bonus"), ["payment:pay"])


def test_without_entity_rows_every_entity_is_taken_as_of_the_end(
    feast_store: Make, stats: Any
) -> None:
    store = feast_store(driver(), stats)
    found = store.get_historical_features(
        features=["stats:trips", "stats:rate"], start_date=at(2.5), end_date=at(6)
    ).to_df()
    assert found["driver_id"].tolist() == [1, 2]
    assert found["trips"].fillna(-1).tolist() == [11, -1]
    assert found["rate"].round(1).fillna(-1).tolist() == [0.2, -1]
    assert set(found["event_timestamp"]) == {pd.Timestamp(at(6))}


@pytest.mark.parametrize("folder", [True, False])
def test_a_result_can_be_kept_and_read_again(
    feast_store: Make, stats: Any, tmp_path: Path, folder: bool
) -> None:
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    store = feast_store(driver(), stats)
    asked = entity_rows(driver_id=[1, 2], event_timestamp=[at(2), at(3)])
    job = store.get_historical_features(asked, ["stats:trips"])
    target = tmp_path / ("kept" if folder else "kept.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        saved = store.create_saved_dataset(
            from_=job, name="kept", storage=SavedDatasetFileStorage(path=str(target))
        )
    assert saved.to_df()["trips"].fillna(-1).tolist() == [10, -1]
    with pytest.raises(FeatureError, match="something at"):
        job.persist(SavedDatasetFileStorage(path=str(target)))


def test_rows_can_be_appended_to_a_source(feast_store: Make, stats: Any, drivers: Path) -> None:
    store = feast_store(driver(), stats)
    new = pd.DataFrame(
        {
            "driver_id": [3],
            "event_timestamp": [at(1)],
            "created": [at(1)],
            "trips": pd.array([7], dtype="int32"),
            "rate": np.array([0.5], dtype=np.float32),
            "city": ["Trier"],
        }
    )
    store.write_to_offline_store("stats", new)
    asked = entity_rows(driver_id=[3, 1], event_timestamp=[at(2), at(2)])
    found = store.get_historical_features(asked, ["stats:trips"]).to_arrow()
    assert found["trips"].to_pylist() == [7, 10]
    assert pq.read_table(drivers).num_rows == 5


def test_wrong_entity_rows_are_named(feast_store: Make, stats: Any) -> None:
    store = feast_store(driver(), stats)
    ask = store.get_historical_features
    with pytest.raises(FeatureError, match=r"no column 'driver_id'.*Did you mean 'driver_ids'"):
        ask(entity_rows(driver_ids=[1], event_timestamp=[at(1)]), ["stats:rate"])
    with pytest.raises(FeatureError, match="no column 'event_timestamp'"):
        ask(entity_rows(driver_id=[1]), ["stats:rate"])
    with pytest.raises(FeatureError, match="type string; a time is needed"):
        ask(pa.table({"driver_id": [1], "event_timestamp": ["monday"]}), ["stats:rate"])
    with pytest.raises(FeatureError, match=r"'driver_id' is of type .*string"):
        ask(pa.table({"driver_id": ["1"], "event_timestamp": [at(1)]}), ["stats:rate"]).to_arrow()
    with pytest.raises(FeatureError, match="type str cannot be joined"):
        ask("SELECT 1", ["stats:rate"])


def test_a_source_without_the_feature_is_named(feast_store: Make, drivers: Path) -> None:
    from feast.types import Float64

    store = feast_store(driver(), view("stats", source(drivers), {"speed": Float64}))
    with pytest.raises(FeatureError, match="has no column 'speed'"):
        store.get_historical_features(
            entity_rows(driver_id=[1], event_timestamp=[at(1)]), ["stats:speed"]
        )


def test_datasets_of_the_platform_are_read_window_by_window(
    feast_store: Make, tmp_path: Path, drivers: Path
) -> None:
    from feast.types import Int32

    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    data = source("aios://m/features/stats")
    store = feast_store(
        driver(), view("stats", data, {"trips": Int32}), artifact_root=artifacts.root
    )
    asked = entity_rows(driver_id=[1, 2], event_timestamp=[at(21), at(3)])
    with pytest.raises(ArtifactMissing, match="'m/features/stats' has no window"):
        store.get_historical_features(asked, ["stats:trips"])
    rows = pq.read_table(drivers)
    artifacts.write("m/features/stats", "2024-01-01T00", rows.slice(0, 3))
    artifacts.write("m/features/stats", "2024-01-01T20", rows.slice(3))
    found = store.get_historical_features(asked, ["stats:trips"]).to_arrow()
    assert found["trips"].to_pylist() == [12, None]


hours = st.integers(0, 40)
cells = st.one_of(st.none(), st.integers(-5, 5))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    rows=st.lists(
        st.tuples(st.one_of(st.none(), st.integers(1, 3)), hours, st.integers(0, 6), cells),
        min_size=1,
        max_size=20,
    ),
    asked=st.lists(st.tuples(st.integers(1, 4), hours), max_size=10),
    budget=st.sampled_from([1, 1024]),
)
def test_every_cell_equals_brute_force(
    feast_store: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[int | None, int, int, int | None]],
    asked: list[tuple[int, int]],
    budget: int,
) -> None:
    from feast.types import Int64

    if budget == 1:
        monkeypatch.setattr("aios_platform.features.retrieval.LEAST_BATCH_ROWS", 3)
        monkeypatch.setattr("aios_platform.features.retrieval.row_width", lambda *_: 2**20)
    table = pa.table(
        {
            "driver_id": pa.array([r[0] for r in rows], pa.int64()),
            "event_timestamp": [at(r[1]) for r in rows],
            "created": [at(r[1] + r[2]) for r in rows],
            "n": pa.array([r[3] for r in rows], pa.int64()),
            "place": list(range(len(rows))),
        }
    )
    pq.write_table(table, tmp_path / "r.parquet", row_group_size=4)
    shown = view("v", source(tmp_path / "r.parquet"), {"n": Int64, "place": Int64})
    store = feast_store(driver(), shown, memory_budget_mb=budget)
    entities = pa.table(
        {
            "driver_id": pa.array([a[0] for a in asked], pa.int64()),
            "event_timestamp": pa.array([at(a[1]) for a in asked], pa.timestamp("us", tz="UTC")),
        }
    )
    found = store.get_historical_features(entities, ["v:n", "v:place"]).to_arrow()
    for place, (key, t) in enumerate(asked):
        seen = [
            (event, event + late, position)
            for position, (k, event, late, _) in enumerate(rows)
            if k == key and event <= t and event + late <= t and event >= t - 10
        ]
        winner = max(seen)[2] if seen else None
        assert found["place"][place].as_py() == winner
        assert found["n"][place].as_py() == (None if winner is None else rows[winner][3])


def test_an_event_far_in_the_future_is_no_overflow(feast_store: Make, tmp_path: Path) -> None:
    from feast.types import Int64

    table = pa.table(
        {
            "driver_id": [1, 1],
            "event_timestamp": pa.array(
                [at(1), datetime(9999, 1, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC")
            ),
            "created": pa.array([at(1), at(1)], pa.timestamp("us", tz="UTC")),
            "n": [1, 2],
        }
    )
    pq.write_table(table, tmp_path / "far.parquet")
    store = feast_store(driver(), view("far", source(tmp_path / "far.parquet"), {"n": Int64}))
    asked = entity_rows(driver_id=[1], event_timestamp=[at(2)])
    assert store.get_historical_features(asked, ["far:n"]).to_arrow()["n"].to_pylist() == [1]
