"""One matrix instead of a column each: the same answers, bit for bit."""

import numpy as np
import onnx
import pytest

from aios_platform.errors import ScoringError
from aios_platform.inference.packed import packed
from aios_platform.inference.session import Session
from aios_platform.training.encoding import numerical_matrix
from tests.unit.inference.networks import build
from tests.unit.training.conftest import make_frame, schema_of

BOTH = (("distance", "delay", "constant", "absent"), ("carrier", "window"))


def answers(content, schema, rows):
    from onnxruntime import InferenceSession

    feeds = {
        name: np.array([text or "" for text in rows[name].to_pylist()], dtype=object)[:, None]
        for name in schema.categorical
    }
    if schema.numerical:
        feeds["numerical"] = numerical_matrix(rows, schema)
    (found,) = InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, feeds)
    return found


@pytest.mark.parametrize(
    "features",
    [BOTH, (("delay",), ()), (("distance", "delay"), ()), ((), ("carrier", "window"))],
    ids=["both", "one number", "numerical only", "categorical only"],
)
def test_answers_are_bit_identical_at_any_batch(features):
    schema = schema_of(*features)
    frame = make_frame(seed=3)
    content = build(frame, schema)
    whole = packed(content, schema)
    session = Session(content)
    for rows in (1, 7, 64, 1000):
        part = frame.slice(11, rows)
        assert np.array_equal(answers(whole, schema, part), session.predict(part))
    assert whole == packed(content, schema)


def test_the_order_of_the_matrix_is_the_schemas():
    schema = schema_of(("distance", "delay"), ("carrier",))
    content = build(make_frame(), schema)
    assert [entry.name for entry in onnx.load_from_string(packed(content, schema)).graph.input] == [
        "numerical",
        "carrier",
    ]
    with pytest.raises(ScoringError, match="begin by putting"):
        packed(content, schema_of(("delay", "distance"), ("carrier",)))


def test_a_model_with_another_head_is_refused(content):
    with pytest.raises(ScoringError, match="nodes take numerical inputs"):
        packed(content, schema_of(("delay",), ("carrier",)))


@pytest.mark.parametrize("garbage", [b"not a model", bytes(50)])
def test_bytes_that_are_no_model_are_refused(garbage):
    with pytest.raises(ScoringError):
        packed(garbage, schema_of(*BOTH))


def test_a_model_of_other_features_is_refused(content):
    with pytest.raises(ScoringError, match="are not the features"):
        packed(content, schema_of(("delay",), ("carrier", "origin")))
