"""Feature frames of real flights."""

from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.errors import ArtifactMissing, FeatureError
from aios_platform.features.training_set import as_input, assemble, scoring_frame

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]
LATER = datetime(2013, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def frames(flights: Any) -> Any:
    return assemble(flights.declaration, flights.windows, LATER, flights.store, flights.feast)


def test_as_many_rows_come_out_as_went_in_and_in_their_order(flights: Any, frames: Any) -> None:
    for window, version in zip(flights.windows, frames.versions, strict=True):
        raw = flights.store.read(flights.store.require("flight_delay/raw/flights", window.key))
        frame = flights.store.read(version)
        assert frame["flight_id"].to_pylist() == raw["flight_id"].to_pylist()
        assert frame["is_late"].to_pylist() == raw["is_late"].to_pylist()
        assert set(frame["window"].to_pylist()) == {window.key}


def test_the_columns_are_those_of_a_feature_frame(flights: Any, frames: Any) -> None:
    schema = flights.store.scan(frames.versions).schema
    instant = pa.timestamp("us", tz="UTC")
    assert schema.names == [
        "flight_id",
        "prediction_time",
        *frames.schema.names,
        "is_late",
        "landed_at",
        "window",
    ]
    assert schema.field("prediction_time").type == instant
    for field in frames.schema.fields:
        wanted = pa.float32() if field.kind is FieldKind.NUMERICAL else pa.string()
        assert schema.field(field.name).type == wanted, field.name
    origins = {field.name: field.origin for field in frames.schema.fields}
    assert origins["carrier"] == "request"
    assert origins["tail_slack"] == "tail_clock"
    assert set(flights.declaration.features.request) <= set(frames.schema.names)


def test_features_equal_a_join_done_by_hand(flights: Any, frames: Any) -> None:
    """Cell by cell against DuckDB's ASOF JOIN of the feature table, with the TTL."""
    found = flights.store.scan(frames.versions).to_table()  # noqa: F841
    for name, key, ttl, feature in [
        ("carrier_delays", "carrier", "28 days", "carrier_late_rate_7d"),
        ("tail_movements", "tail_number", "28 days", "tail_arrival_delay"),
        ("origin_weather", "origin", "6 hours", "temperature"),
    ]:
        keys = flights.store.keys(f"flight_delay/features/{name}")
        table = flights.store.scan(  # noqa: F841
            [flights.store.current(f"flight_delay/features/{name}", k) for k in keys]
        ).to_table()
        raw = flights.store.scan(  # noqa: F841
            [flights.store.current("flight_delay/raw/flights", w.key) for w in flights.windows]
        ).to_table()
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        [[rows, wrong, missing]] = connection.execute(
            f"""
            WITH joined AS (
                SELECT r.flight_id,
                    CASE WHEN f.event_timestamp >= r.prediction_time - INTERVAL '{ttl}'
                        THEN f.{feature} END AS wanted
                FROM raw r ASOF LEFT JOIN table f
                ON r.{key} = f.{key} AND r.prediction_time >= f.event_timestamp
            )
            SELECT count(*), count(*) FILTER (WHERE {feature} IS DISTINCT FROM wanted::FLOAT),
                count(*) FILTER (WHERE {feature} IS NULL)
            FROM found JOIN joined USING (flight_id)
            """.replace("table f", '"table" f')
        ).fetchall()
        assert rows == frames.rows
        assert wrong == 0, feature
        assert missing < rows, feature


def test_labels_known_later_are_null(flights: Any) -> None:
    cut = flights.windows[0].end - timedelta(days=2)
    early = assemble(
        flights.declaration, flights.windows[:1], cut, flights.store, flights.feast, dataset="cut"
    )
    frame = flights.store.read(early.versions[0])
    assert pc.max(frame["landed_at"]).as_py() <= cut
    hidden = frame.filter(pc.greater(frame["prediction_time"], pa.scalar(cut)))
    assert hidden.num_rows > 1000
    assert hidden["is_late"].null_count == hidden.num_rows
    assert frame["is_late"].null_count < frame.num_rows
    with pytest.raises(ValueError, match="no time zone"):
        assemble(flights.declaration, [], datetime(2013, 6, 1), flights.store, flights.feast)


def test_a_frame_that_is_there_is_taken_as_it_is(flights: Any, frames: Any) -> None:
    again = assemble(
        flights.declaration,
        flights.windows,
        LATER + timedelta(days=30),
        flights.store,
        flights.feast,
    )
    assert again.versions == frames.versions
    assert again.digest == frames.digest


def test_a_changed_feature_row_gives_a_new_frame(flights: Any, frames: Any) -> None:
    store, dataset = flights.store, "flight_delay/features/plane"
    version = store.require(dataset, "2013-01")
    rows = store.read(version)
    try:
        store.write(dataset, "2013-01", rows.slice(1), inputs=version.inputs)
        other = assemble(flights.declaration, flights.windows, LATER, store, flights.feast)
        assert other.digest != frames.digest
    finally:
        store.write(dataset, "2013-01", rows, inputs=version.inputs)
    back = assemble(flights.declaration, flights.windows, LATER, store, flights.feast)
    assert back.digest == frames.digest


def test_the_scoring_frame_has_the_same_inputs_and_no_label(flights: Any, frames: Any) -> None:
    scored = scoring_frame(flights.declaration, flights.windows[1], flights.store, flights.feast)
    frame = flights.store.read(scored.versions[0])
    labelled = flights.store.read(frames.versions[1])
    assert not {"is_late", "landed_at"} & set(frame.column_names)
    assert frame.equals(labelled.select(frame.column_names))


def test_what_is_missing_is_named(flights: Any) -> None:
    window = flights.declaration.windows.window("2013-03")
    with pytest.raises(ArtifactMissing, match="'flight_delay/raw/flights' has no version"):
        scoring_frame(flights.declaration, window, flights.store, flights.feast)
    wrong = flights.declaration.features.model_copy(update={"service": "flight_delay_v2"})
    declaration = flights.declaration.model_copy(update={"features": wrong})
    with pytest.raises(FeatureError, match=r"'flight_delay_v2'.*Did you mean 'flight_delay_v1'"):
        scoring_frame(declaration, flights.windows[0], flights.store, flights.feast)


def number(name: str) -> FeatureField:
    return FeatureField(name=name, kind=FieldKind.NUMERICAL, origin="request")


def test_a_vector_of_another_length_is_refused() -> None:
    field = FeatureField(name="v", kind=FieldKind.VECTOR, origin="request", length=2)
    lists = pa.chunked_array([pa.array([[1.0, 2.0], None], pa.list_(pa.float32()))])
    assert as_input(lists, field, "2013-01").to_pylist() == [[1.0, 2.0], None]
    with pytest.raises(FeatureError, match="another length than 3 in window 2013-01"):
        as_input(lists, field.model_copy(update={"length": 3}), "2013-01")


def test_an_infinite_feature_is_refused() -> None:
    values = pa.chunked_array([[1.0, float("inf"), float("nan"), None]])
    with pytest.raises(FeatureError, match="'ratio' is infinite in 1 rows of window 2013-01"):
        as_input(values, number("ratio"), "2013-01")
    fine = as_input(values.filter(pa.array([True, False, True, True])), number("r"), "")
    assert fine.to_pylist() == [1.0, None, None]
    flags = as_input(pa.chunked_array([[True, None]]), number("f"), "")
    assert flags.to_pylist() == [1.0, None]
