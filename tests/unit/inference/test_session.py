"""Scoring Arrow tables by column name."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from aios_platform.errors import ScoringError
from aios_platform.inference import session as module
from aios_platform.inference.session import Session
from tests.unit.inference.conftest import make_onnx, save_with_external_data

ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
        st.one_of(st.none(), st.sampled_from(["AA", "BB", "", "née", "unseen"])),
    ),
    max_size=50,
)


def expected(delay, carrier):
    logit = 0.1 * (delay if delay is not None else 0) + (carrier == "BB")
    return 1 / (1 + math.exp(-max(min(logit, 80), -80)))


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, cut=st.integers(0, 50))
def test_every_row_gets_its_own_probability_however_the_rows_are_cut(rows, cut):
    session = Session(make_onnx())
    table = pa.table(
        {
            "carrier": pa.array([carrier for _, carrier in rows], pa.string()),
            "delay": pa.array([delay for delay, _ in rows], pa.float32()),
        }
    )
    scores = session.predict(table)
    assert scores.dtype == np.float32
    assert scores == pytest.approx([expected(*row) for row in rows], abs=1e-5)
    parts = np.concatenate([session.predict(table.slice(0, cut)), session.predict(table[cut:])])
    assert np.array_equal(parts, scores)


def test_more_rows_than_a_batch(session, make_frame):
    frame = make_frame(rows=2 * module.BATCH_ROWS + 7)
    scores = session.predict(frame)
    assert scores.shape == (frame.num_rows,)
    assert np.array_equal(scores[-7:], session.predict(frame.slice(2 * module.BATCH_ROWS)))


@pytest.mark.parametrize(
    "delay", [pa.int32(), pa.int64(), pa.float32(), pa.float64()], ids=lambda kind: str(kind)
)
@pytest.mark.parametrize("carrier", [pa.string(), pa.large_string()], ids=lambda kind: str(kind))
def test_numbers_and_strings_of_any_width(session, delay, carrier):
    table = pa.table(
        {"delay": pa.array([5, None], delay), "carrier": pa.array(["BB", None], carrier)}
    )
    found = session.predict(table)
    assert found == pytest.approx([expected(5, "BB"), 0.5], abs=1e-6)
    encoded = table.set_column(1, "carrier", table["carrier"].dictionary_encode())
    assert np.array_equal(session.predict(encoded), found)


def test_all_wrong_columns_are_named_at_once(session, make_frame):
    frame = make_frame().drop(["carrier"]).append_column("carier", pa.nulls(100, pa.string()))
    frame = frame.set_column(2, "delay", pa.array(["1"] * 100))
    with pytest.raises(ScoringError) as caught:
        session.predict(frame)
    assert "'carrier' is missing (Did you mean 'carier'?)" in str(caught.value)
    assert "'delay' is of type string, expected a number" in str(caught.value)


def test_bytes_of_another_digest_are_refused(content, session):
    assert Session(content, digest=session.digest).digest == session.digest
    flipped = bytearray(content)
    flipped[-20] ^= 1
    with pytest.raises(ScoringError, match="has the digest"):
        Session(bytes(flipped), digest=session.digest)


@pytest.mark.parametrize("garbage", [b"", b"not a model", bytes(100)])
def test_bytes_that_are_no_model_are_refused(garbage):
    with pytest.raises(ScoringError):
        Session(garbage)


def test_a_truncated_model_is_refused(content):
    with pytest.raises(ScoringError):
        Session(content[: len(content) // 2])


def test_a_model_that_reads_other_files_is_refused(content, tmp_path, monkeypatch):
    external = save_with_external_data(content, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ScoringError, match="in other files"):
        Session(external)


@pytest.mark.parametrize("output", ["score", "Probability"])
def test_a_model_of_another_form_is_refused(output):
    with pytest.raises(ScoringError, match="expected float and string inputs"):
        Session(make_onnx(output=output))


def test_a_model_that_answers_in_another_type_is_refused(make_frame):
    with pytest.raises(ScoringError, match="expected float32 of shape"):
        Session(make_onnx(kind=TensorProto.DOUBLE)).predict(make_frame())


def test_a_probability_that_is_not_finite_is_refused(make_frame):
    with pytest.raises(ScoringError, match=r"not within \[0, 1\], e.g. nan"):
        Session(make_onnx(scale=float("nan"))).predict(make_frame())


def test_no_rows_give_no_probabilities(session, make_frame):
    assert session.predict(make_frame(rows=0)).shape == (0,)
