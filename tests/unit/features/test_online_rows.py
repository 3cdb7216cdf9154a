"""Lines from a table are those from Feast's own rows of it, whatever it holds."""

import math
from datetime import UTC, datetime, timedelta
from functools import cache

import pyarrow as pa
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.utils import _convert_arrow_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.features.online_rows import lines_of_rows, lines_of_table

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
INSTANTS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(
    lambda at: at.replace(tzinfo=UTC)
)
FIELDS = {
    "double": (Float64, pa.float64(), st.floats()),
    "single": (Float32, pa.float32(), st.floats(width=32)),
    "long": (Int64, pa.int64(), st.integers(-(2**53), 2**53)),
    "short": (Int32, pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "said": (Bool, pa.bool_(), st.booleans()),
    "a\tname": (String, pa.string(), TEXTS),
    "raw": (Bytes, pa.binary(), st.binary(max_size=4)),
    "at": (UnixTimestamp, pa.timestamp("us", tz="UTC"), INSTANTS),
    "many": (Array(Float64), pa.list_(pa.float64()), st.lists(st.floats(-9, 9), min_size=1)),
}
# Of a null Feast makes an instant long ago, and of integers beside one floats, which it refuses.
NEVER_NULL = {"at", "long", "short"}
KEYS = {"number": (ValueType.INT64, pa.int64()), "name": (ValueType.STRING, pa.string())}
NOW = datetime(2024, 5, 1, tzinfo=UTC)


@cache
def view(keys) -> FeatureView:
    return FeatureView(
        name="things",
        entities=[Entity(name=key, join_keys=[key], value_type=KEYS[key][0]) for key in keys],
        schema=[
            *(Field(name=name, dtype=kind) for name, (kind, *_) in FIELDS.items()),
            Field(name="number", dtype=Int64),
            Field(name="name", dtype=String),
        ],
        source=FileSource(
            path="unused", timestamp_field="event", created_timestamp_column="created"
        ),
        ttl=timedelta(days=1),
    )


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 6))

    def column(values):
        return draw(st.lists(values, min_size=rows, max_size=rows))

    made = {
        name: pa.array(column(values if name in NEVER_NULL else values | st.none()), kind)
        for name, (_, kind, values) in FIELDS.items()
    }
    made["number"] = pa.array(column(st.integers(-(2**63), 2**63 - 1)), pa.int64())
    made["name"] = pa.array(column(TEXTS), pa.string())
    for name in ("event", "created"):
        made[name] = pa.array(column(INSTANTS), pa.timestamp("us", tz="UTC"))
    return pa.table(made)


def parsed(lines) -> list[tuple]:
    found = []
    for line in "".join(lines).removesuffix("\n").split("\n"):
        *values, event, created, place = line.split("\t")
        times = [datetime.fromisoformat(each.replace("Z", "+00:00")) for each in (event, created)]
        found.append((*values, *times, place))
    return found


@pytest.mark.parametrize("keys", [("number",), ("name",), ("number", "name")])
@settings(max_examples=30, deadline=None)
@given(table=tables())
def test_they_are_the_same(keys, table):
    things = view(keys)
    joined = {key: KEYS[key][0] for key in keys}
    features = {feature.name: feature.dtype.to_value_type() for feature in things.features}
    lines = list(lines_of_table(table, joined, features, "event", "created", 3))
    assert len(lines) == table.num_rows * len(features)
    rows = _convert_arrow_to_proto(table, things, joined)
    assert parsed(lines) == parsed(lines_of_rows(rows, 3))


def test_a_null_instant_is_a_null():
    moments = pa.array([NOW, None], pa.timestamp("us", tz="UTC"))
    table = pa.table({"key": ["a", "b"], "event": [NOW, NOW], "at": moments})
    first, second = lines_of_table(
        table, {"key": ValueType.STRING}, {"at": ValueType.UNIX_TIMESTAMP}, "event", None, 3
    )
    told = Value.FromString(bytes.fromhex(first.split("\t")[2].removeprefix("\\\\x")))
    assert told.unix_timestamp_val == NOW.timestamp()
    assert second.split("\t")[2] == "\\\\x"


def test_a_large_integer_beside_a_null_keeps_its_last_digits():
    table = pa.table(
        {"key": ["a", "b"], "event": [NOW, NOW], "count": pa.array([2**62 + 1, None], pa.int64())}
    )
    first, second = lines_of_table(
        table, {"key": ValueType.STRING}, {"count": ValueType.INT64}, "event", None, 3
    )
    assert first.split("\t")[3] == str(2**62 + 1)
    assert second.split("\t")[2:4] == ["\\\\x", "\\N"]
    assert first.split("\t")[5] == "\\N"


def test_a_not_a_number_is_a_null_and_times_without_a_zone_are_in_utc():
    table = pa.table(
        {
            "key": ["a"],
            "event": pa.array([NOW.replace(tzinfo=None)], pa.timestamp("ns")),
            "share": pa.array([math.nan]),
        }
    )
    (line,) = lines_of_table(
        table, {"key": ValueType.STRING}, {"share": ValueType.DOUBLE}, "event", None, 3
    )
    assert line.split("\t")[2:5] == ["\\\\x", "\\N", "2024-05-01 00:00:00.000000Z"]
