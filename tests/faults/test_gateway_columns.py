"""Columns that callers send by mistake or by malice: Arrow streams, and the tensors of V2."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.gateway_process import JSON
from tests.faults.raw_http import GOOD, MODEL, PATH, instance
from tests.served_models import ROW

pytestmark = [pytest.mark.postgres]


ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
SIZES, COLOURS = pa.array([3.5, 1.0]), pa.array(["red", "blue"])
COLUMNS = {"size": SIZES, "weight": pa.array([0.25, None]), "colour": COLOURS}


def arrow(**columns: pa.Array) -> bytes:
    table = pa.table(COLUMNS | columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


STREAM = arrow()
YEAR = 365 * 86400
MOMENTS = {
    "JSON, the year 0": instance(at='"0001-01-01T00:00:00+12:00"'),
    "JSON, the year 10000": instance(at='"9999-12-31T23:59:59-12:00"'),
    "Arrow, far away": arrow(at=pa.array([0, 1 << 62], pa.timestamp("s"))),
    "Arrow, before the year 1": arrow(at=pa.array([0, -2000 * YEAR], pa.timestamp("s", "UTC"))),
    "Arrow, after the year 9999": arrow(at=pa.array([0, 9000 * YEAR], pa.timestamp("s"))),
    "Arrow, with names": arrow(at=pa.array([0, 1 << 62], pa.timestamp("us")), id=COLOURS),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_a_time_that_no_calendar_has_is_refused(odd_gateway, name):
    headers = ARROW if "Arrow" in name else {"content-type": JSON}
    answer = odd_gateway.ask("POST", PATH, MOMENTS[name], headers)
    assert (answer.status, answer.json["code"]) == (422, "invalid_input")


WRONG = {
    "nothing": (b"", 400),
    "no rows": (STREAM[: STREAM.index(b"red") - 400], 400),
    "an infinite number": (arrow(size=pa.array([1.0, float("inf")])), 422),
    "no number": (arrow(size=pa.array([1.0, float("nan")])), 422),
    "a null too many": (arrow(size=pa.array([1.0, None])), 422),
    "texts for numbers": (arrow(size=COLOURS), 422),
    "numbers for texts": (arrow(colour=SIZES), 422),
    "lists for numbers": (arrow(size=pa.array([[1.0], [2.0]])), 422),
    "an unknown text": (arrow(colour=pa.array(["red", "green"])), 422),
    "an unknown column": (arrow(shape=COLOURS), 422),
    "times for numbers": (arrow(size=pa.array([1, 2], pa.timestamp("s"))), 422),
    "numbers for times": (arrow(at=SIZES), 422),
    "JSON": (GOOD, 400),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_arrow_body_is_refused(odd_gateway, name):
    body, status = WRONG[name]
    answer = odd_gateway.ask("POST", PATH, body, ARROW)
    assert answer.status == status, answer.body


@settings(max_examples=150, deadline=None)
@given(
    at=st.integers(0, len(STREAM)),
    cut=st.integers(0, len(STREAM)),
    put=st.binary(min_size=1, max_size=9),
    more=st.integers(0, 8),
)
def test_a_damaged_arrow_body_is_refused_or_read(odd_gateway, at, cut, put, more):
    damaged = (
        STREAM[:cut],
        STREAM[:at] + put + STREAM[at + len(put) :],
        STREAM[: at + more] + STREAM[at:],
    )
    for body in damaged:
        assert odd_gateway.ask("POST", PATH, body, ARROW).status in (200, 400, 413, 422)
        assert odd_gateway.process.poll() is None


ODD_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5), st.lists(st.integers(0, 3), max_size=2),
)  # fmt: skip
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["size", "weight", "colour", "at", "id", "shape"]),
        "datatype": st.sampled_from(["FP32", "FP16", "INT64", "UINT64", "BOOL", "BYTES", "X"]),
        "shape": st.lists(st.integers(-1, 3) | st.just(1 << 62), max_size=3),
    },
    optional={
        "data": st.lists(ODD_VALUES, max_size=3) | ODD_VALUES,
        "parameters": st.dictionaries(st.just("binary_data_size"), ODD_VALUES),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    inputs=st.lists(TENSORS, max_size=4),
    binary=st.binary(max_size=20),
    length=st.none() | st.text("0123456789-.", max_size=4) | st.just("right"),
)
def test_odd_tensors_are_refused_or_read(odd_gateway, inputs, binary, length):
    body = json.dumps({"inputs": inputs}).encode()
    length = str(len(body)) if length == "right" else length
    headers = {} if length is None else {"inference-header-content-length": length}
    answer = odd_gateway.ask("POST", f"/v2/models/{MODEL}/infer", body + binary, headers)
    assert answer.status in (200, 400, 413, 422)
    assert answer.status == 200 or answer.json["error"]


def test_nothing_of_it_was_a_failure_of_the_gateway(odd_gateway):
    assert odd_gateway.predict(MODEL, {"instance": ROW}).status == 200
    assert odd_gateway.metric("aios_refused_total", code="internal_error") == 0
    assert "Traceback" not in odd_gateway.log
