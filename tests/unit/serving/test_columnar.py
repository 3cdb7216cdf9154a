"""Columns from outside: read as JSON is, and refused where JSON is."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios_platform.errors import RequestRefused
from aios_platform.serving.arrow_streams import arrow_columns
from aios_platform.serving.columnar import Columnar
from aios_platform.serving.contract import input_contracts
from aios_platform.serving.work import moments_of
from tests.served_models import FEATURES, ROW, declaration

CONTRACT = input_contracts(declaration(), FEATURES, {"place": "int"})[1]
COLUMNAR = Columnar(CONTRACT, FEATURES)
NOW = datetime(2024, 5, 1, tzinfo=UTC)
GOOD = {
    "size": pa.array([3.5, 4.0]),
    "weight": pa.array([0.25, None]),
    "colour": pa.array(["red", "blue"]),
}


def stream(columns, **options) -> bytes:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def read(columns, most=1000):
    """A whole frame of columns, its moments and its ids."""
    found = arrow_columns(stream(columns), most)
    return (*COLUMNAR.frame(found), COLUMNAR.moments(found, 5.0), COLUMNAR.ids(found))


def refusal(doing, *args) -> str:
    with pytest.raises(RequestRefused) as refused:
        doing(*args)
    return refused.value.code


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint64(), pa.int64()]
)
def test_numbers_of_any_width_are_taken(kind):
    size = pa.array(np.array([3, 4], kind.to_pandas_dtype()))
    matrix, texts, moments, ids = read({**GOOD, "size": size})
    assert matrix.dtype == np.float32
    assert matrix[:, 0].tolist() == [3.0, 4.0]
    assert matrix[0, 1] == 0.25
    assert np.isnan(matrix[1, 1])
    assert texts == [["red", "blue"]]
    assert moments.tolist() == [5.0, 5.0]
    assert ids is None


@pytest.mark.parametrize(
    "colour",
    [
        pa.array(["red", "blue"], pa.large_string()),
        pa.array(["red", "blue"]).dictionary_encode(),
        pa.array(["red", "blue"], pa.large_string()).dictionary_encode(),
    ],
)
def test_texts_of_any_layout_are_taken(colour):
    assert read({**GOOD, "colour": colour})[1] == [["red", "blue"]]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_of_any_unit_are_taken_alike(unit):
    at = pa.array([NOW, None], pa.timestamp(unit, "Europe/Paris"))
    odd = pa.array([1], pa.timestamp("ns", "Mars/Olympus"))
    assert read({**GOOD, "at": at})[2].tolist() == [NOW.timestamp(), 5.0]
    told = arrow_columns(stream({**GOOD, "place": pa.array([1, 2]), "at": at}), 10)
    rows = COLUMNAR.rows(told)
    assert moments_of(rows, CONTRACT.moment, 5.0).tolist() == [NOW.timestamp(), 5.0]
    one = {name: column[:1] for name, column in GOOD.items()}
    [row] = COLUMNAR.rows(arrow_columns(stream({**one, "place": pa.array([1]), "at": odd}), 10))
    assert row[CONTRACT.moment] == datetime(1970, 1, 1, tzinfo=UTC)


def test_moments_may_be_texts_for_protocols_without_timestamps():
    at = pa.array([NOW.isoformat(), None])
    assert read({**GOOD, "at": at})[2].tolist() == [NOW.timestamp(), 5.0]
    assert refusal(read, {**GOOD, "at": pa.array(["2024-05-01T00:00:00", "x"])}) == "invalid_input"


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string(), pa.large_string()])
def test_rows_may_be_named_by_numbers_and_texts(kind):
    assert read({**GOOD, "id": pa.array([7, None]).cast(kind)})[3] in (
        ["7", None],
        ["7.0", None],
    )


BAD = {
    "missing": {"size": pa.array([1.0, None])},
    "NaN": {"size": pa.array([1.0, np.nan])},
    "below": {"size": pa.array([-0.001, 1])},
    "above": {"size": pa.array([1000.001, 1])},
    "infinite": {"weight": pa.array([np.inf, 1])},
    "infinite in float32": {"weight": pa.array([1e39, 1])},
    "a number as text": {"size": pa.array(["1", "2"])},
    "texts as numbers": {"colour": pa.array([1, 2])},
    "bytes": {"colour": pa.array([b"red", b"blue"])},
    "unknown value": {"colour": pa.array(["red", "green"])},
    "missing text": {"colour": pa.array(["red", None])},
    "unknown column": {"shape": pa.array(["round", "flat"])},
    "without an offset": {"at": pa.array([NOW, NOW], pa.timestamp("us"))},
    "beyond the calendar": {"at": pa.array([2**62, 1], pa.timestamp("s", "UTC"))},
    "a moment as number": {"at": pa.array([1, 2])},
    "nested": {"id": pa.array([[1], [2]])},
    "structs": {"id": pa.array([{"a": 1}, {"a": 2}])},
    "shared texts": {"id": pa.array(["x", "y"], pa.string_view())},
    "runs": {"size": pa.RunEndEncodedArray.from_arrays([2], [3.5])},
    "nested dictionary": {
        "id": pa.DictionaryArray.from_arrays([0, 0], pa.array([[1, 2]])),
    },
    "a long text": {"id": pa.array(["x" * 1025, "y"])},
    "a long text, shared": {"id": pa.array(["x" * 1025] * 2).dictionary_encode()},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_columns_outside_the_declaration_are_refused(name):
    assert refusal(read, {**GOOD, **BAD[name]}) == "invalid_input"


@pytest.mark.parametrize("name", [name for name in BAD if name != "infinite in float32"])
def test_rows_outside_the_contract_are_refused(name):
    columns = {**GOOD, "place": pa.array([1, 2]), **BAD[name]}
    if name == "NaN":
        # Missing, as in frames; and `size` may not be.
        columns["size"] = pa.array([1.0, np.nan], pa.float16())

    def rows():
        found = COLUMNAR.rows(arrow_columns(stream(columns), 10))
        moments_of(found, CONTRACT.moment, 0.0)

    assert refusal(rows) == "invalid_input"


def test_a_missing_number_may_be_nan_in_rows_as_in_frames():
    columns = {**GOOD, "weight": pa.array([0.25, np.nan]), "place": pa.array([1, 2])}
    rows = COLUMNAR.rows(arrow_columns(stream(columns), 10))
    assert [row[1] for row in rows] == [0.25, None]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (stream(GOOD, compression="zstd"), "unsupported_media_type"),
        (stream({n: c.dictionary_encode() for n, c in GOOD.items()}, compression="lz4"),
         "unsupported_media_type"),
        (stream(pa.table(list(GOOD.values())[:2], names=["size", "size"])), "malformed_body"),
        (stream({name: column[:0] for name, column in GOOD.items()}), "invalid_input"),
        (stream(pa.table({})), "invalid_input"),
        (stream({name: pa.concat_arrays([c] * 6) for name, c in GOOD.items()}), "too_many_rows"),
        (stream(pa.concat_tables([pa.table(GOOD)] * 6)), "too_many_rows"),
        (stream(GOOD).replace(b"colour", b"col\xffur"), "malformed_body"),
        (stream({**GOOD, "at": pa.array([NOW, NOW], pa.timestamp("us", "Paris"))}).replace(
            b"Paris", b"Par\xffs"), "malformed_body"),
        (b"", "malformed_body"),
        (b"ARROW1\0\0", "malformed_body"),
    ],
)  # fmt: skip
def test_streams_that_are_none_or_too_large_are_refused(body, code):
    assert refusal(arrow_columns, body, 10) == code


@given(st.data())
def test_a_damaged_stream_is_refused_or_read_and_nothing_else(data):
    body = bytearray(stream({**GOOD, "id": pa.array(["a", "b"]).dictionary_encode()}))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = arrow_columns(bytes(body[: data.draw(st.integers(1, len(body)))]), 10)
        COLUMNAR.is_frame(set(found)) and COLUMNAR.frame(found)
        COLUMNAR.ids(found)
    except RequestRefused:
        return
    assert 0 < len(next(iter(found.values()))) <= 10


row = st.fixed_dictionaries(
    {
        "size": st.floats(0, 1000, width=32),
        "weight": st.none() | st.floats(-(2.0**100), 2.0**100, width=32),
        "colour": st.sampled_from(["red", "blue"]),
        "place": st.integers(-(2**62), 2**62),
    },
    optional={"id": st.text(st.characters(codec="utf-8"), max_size=10)},
)


@given(st.lists(row, min_size=1, max_size=5))
def test_rows_in_columns_are_those_of_json(sent):
    body = json.dumps({"instances": sent}).encode()
    table = pa.Table.from_pylist(
        sent, pa.schema([("size", pa.float32()), ("weight", pa.float64()), ("colour", pa.string()),
                         ("place", pa.int64()), ("id", pa.string())]),
    )  # fmt: skip
    assert COLUMNAR.rows(arrow_columns(stream(table), 10)) == CONTRACT.decode(body)[0]


def test_what_is_a_frame():
    assert COLUMNAR.is_frame({"size", "weight", "colour"})
    assert COLUMNAR.is_frame({*ROW, "id"})
    assert not COLUMNAR.is_frame({"size", "colour", "place"})
