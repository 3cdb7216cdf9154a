"""What is fitted on the training rows, and what that makes of any row."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios_platform.errors import TrainingError
from aios_platform.training.encoding import (
    MIN_COUNT,
    UNKNOWN,
    categorical_codes,
    fit_encoding,
    numerical_matrix,
)
from tests.unit.training.conftest import make_frame, schema_of

WILD = st.floats(width=32, allow_nan=True, allow_infinity=True)


def test_a_rare_an_unseen_and_a_missing_category_share_the_unknown_bucket(frame, schema):
    encoding = fit_encoding(frame, schema)

    assert encoding.vocabularies == (("AA", "BB", "CC"),), f"ZZ occurs below {MIN_COUNT} times"
    rows = pa.table({"carrier": ["BB", "ZZ", "never", None, ""]})
    codes = categorical_codes(rows, schema_of((), ("carrier",)), encoding.vocabularies)
    assert codes[:, 0].tolist() == [2, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]


def test_dictionary_columns_are_strings_too(frame, schema):
    encoded = frame.set_column(
        frame.schema.get_field_index("carrier"), "carrier", frame["carrier"].dictionary_encode()
    )
    assert fit_encoding(encoded, schema).vocabularies == fit_encoding(frame, schema).vocabularies


def test_missing_column_is_named_with_the_nearest(frame, schema):
    with pytest.raises(TrainingError, match="lacks the column 'delay'"):
        fit_encoding(frame.drop(["delay"]), schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (schema_of(("carrier",), ()), "'carrier' of type string is not numerical"),
        (schema_of((), ("delay",)), "'delay' is of type double; expected string"),
    ],
)
def test_wrong_kind_is_refused(frame, schema, message):
    with pytest.raises(TrainingError, match=message):
        fit_encoding(frame, schema)


def test_knots_rise_and_their_scores_with_them(frame, schema):
    encoding = fit_encoding(frame, schema)
    for edges, scores in zip(encoding.knots, encoding.scores, strict=True):
        assert edges.size >= 2
        assert (np.diff(edges) > 0).all()
        assert (np.diff(scores) >= 0).all()
    assert encoding.missing.tolist() == [False, True, False, True]


@settings(max_examples=30, deadline=None)
@given(values=st.lists(WILD, min_size=1, max_size=20))
def test_whatever_a_number_is_its_encoding_is_finite(values):
    from aios_platform.training.encoder import NumericalEncoding

    schema = schema_of(("delay",), ())
    module = NumericalEncoding(fit_encoding(make_frame(rows=100), schema))
    raw = np.array(values, dtype=np.float32)[:, None]
    encoded = module.encode(raw).numpy()

    assert np.isfinite(encoded).all()
    assert (encoded[:, -1] == np.isnan(raw[:, 0])).all(), "the last column is the indicator"
    present = ~np.isnan(raw[:, 0])
    order = np.argsort(raw[present, 0])
    assert (np.diff(encoded[present][order, 0]) >= -1e-6).all(), "the map keeps the order"


@settings(max_examples=10, deadline=None)
@given(values=st.lists(WILD, min_size=1, max_size=40))
def test_any_training_values_can_be_encoded(values):
    from aios_platform.training.encoder import NumericalEncoding

    frame = pa.table({"x": pa.array(values, pa.float32())})
    schema = schema_of(("x",), ())
    with np.errstate(over="ignore"):
        module = NumericalEncoding(fit_encoding(frame, schema))
    assert np.isfinite(module.encode(numerical_matrix(frame, schema)).numpy()).all()
