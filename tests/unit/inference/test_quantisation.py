"""The int8 form of a model: nearly its answers, and each row's by itself."""

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from aios_platform.errors import ScoringError
from aios_platform.inference.packed import packed
from aios_platform.inference.quantisation import quantised
from aios_platform.inference.session import Session
from tests.unit.inference.networks import build
from tests.unit.training.conftest import make_frame, schema_of

SCHEMA = schema_of(("distance", "delay", "constant", "absent"), ("carrier",))
FRAME = make_frame(seed=5)
FULL = build(FRAME, SCHEMA, hidden=(64, 32), slope=8.0)
INT8 = quantised(FULL, FRAME)


def test_answers_are_nearly_those_of_the_full_model():
    full, fast = Session(FULL).predict(FRAME), Session(INT8).predict(FRAME)
    assert full.std() > 0.02
    assert 0 < np.abs(full - fast).max() < 0.1 * (full.max() - full.min())
    assert np.corrcoef(full, fast)[0, 1] > 0.999


def test_the_hidden_layers_are_integers_and_the_last_one_is_not():
    graph = onnx.load_from_string(INT8).graph
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(products) == 4, "two members with two hidden layers each"
    assert len([node for node in graph.node if node.op_type == "Gemm"]) == 2
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in products:
        assert constants[node.input[1]].data_type == TensorProto.INT8
        weights = numpy_helper.to_array(constants[node.input[1]])
        assert np.abs(weights).max() == 63
    assert len(INT8) < 0.6 * len(FULL)


@settings(max_examples=30, deadline=None)
@given(
    row=st.integers(0, FRAME.num_rows - 1),
    others=st.lists(
        st.tuples(st.floats(-1e9, 1e9, width=32), st.sampled_from(["AA", "ZZ", "new", ""])),
        max_size=40,
    ),
)
def test_an_answer_does_not_depend_on_the_rest_of_its_batch(row, others):
    session = Session(INT8)
    single = FRAME.slice(row, 1).select(list(SCHEMA.names))
    wild = pa.table(
        {
            **{name: pa.array([n for n, _ in others], pa.float64()) for name in SCHEMA.numerical},
            "carrier": pa.array([text for _, text in others], pa.string()),
        }
    )
    together = pa.concat_tables([single.cast(wild.schema), wild])
    answers = session.predict(together)
    assert answers[0] == session.predict(single)[0]
    assert np.array_equal(answers[1:], session.predict(wild))


def test_the_same_model_and_rows_give_the_same_bytes():
    assert quantised(FULL, FRAME) == INT8


def test_it_can_be_fed_a_matrix_like_the_full_model():
    inputs = {entry.name for entry in onnx.load_from_string(packed(INT8, SCHEMA)).graph.input}
    assert inputs == {"numerical", "carrier"}


def test_a_model_without_a_large_layer_is_left_as_it_is(content, make_frame):
    with pytest.raises(ScoringError, match="no dense layer"):
        quantised(content, make_frame())
    with pytest.raises(ScoringError, match="no dense layer"):
        quantised(build(FRAME, SCHEMA, hidden=(8,)), FRAME)


def test_no_rows_give_no_ranges():
    with pytest.raises(ScoringError, match="No rows"):
        quantised(FULL, FRAME.slice(0, 0))


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(ScoringError):
        quantised(b"not a model", FRAME)


@pytest.mark.parametrize("layer", [0, 2], ids=["first", "second"])
def test_weights_that_are_not_finite_are_refused(layer):
    model = onnx.load_from_string(FULL)
    name = f"members.0.layers.{3 * layer // 2}.weight"
    [tensor] = [each for each in model.graph.initializer if each.name == name]
    spoilt = numpy_helper.to_array(tensor).copy()
    spoilt[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(spoilt, name))
    with pytest.raises(ScoringError, match="not finite"):
        quantised(model.SerializeToString(), FRAME)
