"""A window scored: every row once, pinned, and only whole."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.errors import ScoringError
from aios_platform.inference.batch import prediction_schema, score_window
from aios_platform.inference.session import Session
from tests.unit.inference.conftest import make_onnx

ARGUMENTS = {
    "model": "flights",
    "version": "3",
    "window": "2024-01",
    "row_id": "flight_id",
    "prediction_time": "asked_at",
    "inputs": {"features": "abc"},
}
DATASET = "flights/predictions"


def test_rows_in_are_rows_out_in_their_order(session, store, make_frame):
    frame = make_frame(rows=20_000)
    at = datetime(2024, 2, 1, tzinfo=UTC)
    version = score_window(session, frame, store, **ARGUMENTS, scored_at=at)

    found = store.read(version)
    assert found.schema.equals(prediction_schema(frame.schema.field("flight_id")))
    assert found["flight_id"].equals(frame["flight_id"])
    assert found["prediction_time"].equals(frame["asked_at"])
    assert np.array_equal(found["probability"].to_numpy(), session.predict(frame))
    assert found["prediction_id"][7].as_py() == "flights:3:2024-01:f7"
    assert set(found["model_version"].to_pylist()) == {"3"}
    assert set(found["model_digest"].to_pylist()) == {session.digest}
    assert set(found["scored_at"].to_pylist()) == {at}


def test_the_same_version_over_the_same_inputs_is_scored_once(session, store, make_frame):
    def explode():
        raise AssertionError("the frame was read again")
        yield

    first = score_window(session, make_frame(), store, **ARGUMENTS)
    assert score_window(session, explode(), store, **ARGUMENTS) == first


@pytest.mark.parametrize(
    "change", [{"version": "4"}, {"inputs": {"features": "abd"}}], ids=["version", "inputs"]
)
def test_another_version_or_input_is_written_beside_the_old(session, store, make_frame, change):
    first = score_window(session, make_frame(), store, **ARGUMENTS)
    before = store.read(first)
    second = score_window(session, make_frame(), store, **(ARGUMENTS | change))
    assert second.version == first.version + 1
    assert store.history(DATASET, "2024-01") == [first, second]
    assert store.read(first).equals(before)


def test_another_model_under_the_same_version_is_scored_again(session, store, make_frame):
    first = score_window(session, make_frame(), store, **ARGUMENTS)
    other = score_window(Session(make_onnx(scale=0.2)), make_frame(), store, **ARGUMENTS)
    assert other.digest != first.digest


@pytest.mark.parametrize("form", ["table", "batches", "tables", "dataset"])
def test_every_form_of_frame_gives_the_same_predictions(session, store, make_frame, form):
    frame = make_frame(rows=10_000)
    stored = store.write("frames", "x", frame)
    given = {
        "table": frame,
        "batches": iter(frame.to_batches(max_chunksize=333)),
        "tables": (frame.slice(start, 4000) for start in range(0, 10_000, 4000)),
        "dataset": store.scan([stored]),
    }[form]
    found = store.read(score_window(session, given, store, **ARGUMENTS))
    assert found["flight_id"].equals(frame["flight_id"])
    assert np.array_equal(found["probability"].to_numpy(), session.predict(frame))


def test_a_window_without_rows_has_predictions_without_rows(session, store, make_frame):
    empty = make_frame(rows=0)
    stored = store.write("frames", "x", empty)
    for frame in (empty, store.scan([stored])):
        assert score_window(session, frame, store, **ARGUMENTS).rows == 0


def with_null_id(frame):
    ids = frame["flight_id"].to_pylist()
    ids[-1] = None
    return frame.set_column(0, "flight_id", pa.array(ids, pa.string()))


def with_duplicate_id(frame):
    ids = frame["flight_id"].to_pylist()
    ids[-1] = ids[0]
    return frame.set_column(0, "flight_id", pa.array(ids))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_null_id, "have no 'flight_id'"),
        (with_duplicate_id, "share their 'flight_id'"),
        (lambda frame: frame.drop(["flight_id"]), "lacks 'flight_id'"),
        (lambda frame: frame.drop(["asked_at"]), "lacks 'asked_at'"),
        (lambda frame: frame.drop(["delay"]), "'delay' is missing"),
    ],
)
def test_a_frame_that_cannot_be_scored_whole_leaves_nothing(
    session, store, make_frame, spoil, message
):
    with pytest.raises(ScoringError, match=message):
        score_window(session, spoil(make_frame(rows=100_000)), store, **ARGUMENTS)
    assert store.current(DATASET, "2024-01") is None
    assert not list((store_folder(store)).rglob("*.parquet"))


def test_no_batches_are_an_error(session, store):
    with pytest.raises(ScoringError, match="has no batches"):
        score_window(session, iter(()), store, **ARGUMENTS)


def test_a_source_that_breaks_off_leaves_the_old_predictions_current(session, store, make_frame):
    old = score_window(session, make_frame(), store, **ARGUMENTS)

    def broken():
        yield from make_frame(rows=200_000).to_batches(max_chunksize=1000)
        raise OSError("the disk went away")

    newer = ARGUMENTS | {"version": "4"}
    with pytest.raises(Exception, match="the disk went away"):
        score_window(session, broken(), store, **newer)
    assert store.current(DATASET, "2024-01") == old
    assert score_window(session, make_frame(), store, **newer).version == 2


def test_a_model_that_turns_bad_in_a_later_batch_leaves_nothing(store, make_frame):
    frame = make_frame(rows=100_000)
    bad = frame.slice(90_000, 1).set_column(3, "delay", pa.array([np.inf]))
    whole = pa.concat_tables([frame.slice(0, 90_000), bad, frame.slice(90_001)])
    with pytest.raises(ScoringError, match="not within"):
        score_window(Session(make_onnx(scale=0.0)), whole, store, **ARGUMENTS)
    assert store.current(DATASET, "2024-01") is None


def test_memory_stays_bounded_however_long_the_window(session, store, make_frame):
    batch = make_frame(rows=8192)
    wide = [f"unused_{i}" for i in range(50)]
    highest = 0

    def stream(batches):
        nonlocal highest
        for index in range(batches):
            ids = pa.array(np.arange(index * 8192, (index + 1) * 8192))
            columns = {
                "flight_id": ids,
                **{name: batch[name] for name in ("asked_at", "carrier", "delay")},
                **{name: pa.array(np.full(8192, float(index))) for name in wide},
            }
            highest = max(highest, pa.total_allocated_bytes() - base)
            yield pa.table(columns)

    base = pa.total_allocated_bytes()
    version = score_window(session, stream(60), store, **ARGUMENTS)
    assert version.rows == 60 * 8192
    assert highest < 60 * 8192 * 50 * 8 / 4, "a quarter of what the frame takes whole"


def store_folder(store):
    from pathlib import Path

    return Path(store.root)
