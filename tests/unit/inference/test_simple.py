"""The logistic model of the request's columns."""

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.datasets import FeatureSchema
from aios_platform.errors import ScoringError
from aios_platform.inference.packed import packed
from aios_platform.inference.session import Session
from aios_platform.inference.simple import fit_simple
from aios_platform.metrics import roc_auc
from aios_platform.promotion.exam import labelled
from tests.unit.training.conftest import make_frame, schema_of

LABEL = "is_late"
FIELDS = schema_of(("distance", "delay", "absent"), ("carrier", "window")).fields
ROWS = labelled(make_frame(), LABEL)


def design(rows):
    """One-hot and standardised, by other means than the code's own."""
    table = rows.to_pandas()
    columns = []
    for name in ("distance", "delay"):
        center, scale = table[name].mean(), table[name].std(ddof=0)
        columns += [((table[name] - center) / scale).fillna(0), table[name].isna()]
    for name in ("carrier", "window"):
        counts = table[name].value_counts()
        columns += [table[name] == value for value in counts[counts >= 20].index]
    return np.column_stack(columns).astype(float)


def test_it_is_the_logistic_regression_of_the_rows():
    from sklearn.linear_model import LogisticRegression

    labels = ROWS[LABEL].to_numpy(zero_copy_only=False).astype(bool)
    wide = design(ROWS)
    oracle = LogisticRegression(tol=1e-8, max_iter=1000).fit(wide, labels)
    found = Session(fit_simple(ROWS, FIELDS, LABEL)).predict(ROWS)
    assert np.abs(found - oracle.predict_proba(wide)[:, 1]).max() < 2e-3
    assert roc_auc(labels, found) > 0.85


def test_missing_new_and_extreme_values_have_an_answer():
    session = Session(fit_simple(ROWS, FIELDS, LABEL))
    numbers = [None, np.inf, -np.inf, 1e30, 0.0]
    odd = pa.table(
        {
            **{name: pa.array(numbers, pa.float64()) for name in ("distance", "delay", "absent")},
            "carrier": pa.array([None, "", "new", "AA", "ZZ"]),
            "window": pa.array([None] * 5, pa.string()),
        }
    )
    answers = session.predict(odd)
    assert ((answers > 0) & (answers < 1)).all()
    # Beyond the range of the training rows nothing changes any more.
    highest = pa.compute.max(ROWS["delay"]).as_py()
    rows = odd.slice(3, 1).set_column(1, "delay", pa.array([highest]))
    assert session.predict(rows) == pytest.approx(answers[3], abs=1e-6)


@pytest.mark.parametrize("names", [(("delay",), ()), ((), ("carrier",))], ids=str)
def test_inputs_of_one_kind_alone(names):
    schema = schema_of(*names)
    content = fit_simple(ROWS, schema.fields, LABEL)
    assert set(Session(content).inputs) == set(schema.names)
    assert packed(content, schema)


def test_the_same_rows_give_the_same_bytes_in_the_models_own_form():
    content = fit_simple(ROWS, FIELDS, LABEL)
    assert fit_simple(ROWS, FIELDS, LABEL) == content
    assert packed(content, FeatureSchema(fields=FIELDS)) != content


def test_columns_may_be_called_what_they_will():
    renamed = ROWS.rename_columns(
        {"distance": "low", "delay": "absence", "absent": "probability_", "carrier": "zero"}
    )
    schema = schema_of(("low", "absence", "probability_"), ("zero", "window"))
    found = Session(fit_simple(renamed, schema.fields, LABEL)).predict(renamed)
    assert np.array_equal(found, Session(fit_simple(ROWS, FIELDS, LABEL)).predict(ROWS))


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(ScoringError, match="0 request columns"):
        fit_simple(ROWS, (), LABEL)
    ones = ROWS.filter(ROWS[LABEL])
    with pytest.raises(ScoringError, match="No simple model"):
        fit_simple(ones, FIELDS, LABEL)
    with pytest.raises(ScoringError, match="No simple model"):
        fit_simple(ROWS.slice(0, 0), FIELDS, LABEL)
