"""The linear model: what scikit-learn finds on the same rows, for each task and kind of input."""

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.errors import ScoringError
from aios_platform.inference.linear import fit_linear

ROWS = 600
GENERATOR = np.random.default_rng(7)
NUMBERS = GENERATOR.normal(3, 2, (ROWS, 2))
PIXELS = GENERATOR.normal(size=(ROWS, 4)).astype(np.float32)
CARRIER = GENERATOR.choice(["AA", "DL", "UA"], ROWS)
SIGNAL = NUMBERS[:, 0] - 3 + PIXELS[:, 1] + (CARRIER == "DL")
CLASSES = AnswerSchema(task="multiclass_classification", classes=("a", "b", "c"))


def field(name, kind, length=None):
    return FeatureField(name=name, kind=kind, origin="request", length=length)


SCHEMA = FeatureSchema(
    fields=(
        field("first", FieldKind.NUMERICAL),
        field("second", FieldKind.NUMERICAL),
        field("carrier", FieldKind.CATEGORICAL),
        field("image", FieldKind.VECTOR, 4),
    )
)


def rows(label):
    return pa.table(
        {
            "first": NUMBERS[:, 0],
            "second": NUMBERS[:, 1],
            "carrier": CARRIER,
            "image": pa.array(list(PIXELS)),
            "label": label,
        }
    )


def wide():
    """The same columns by other means."""
    each = [(NUMBERS - NUMBERS.mean(axis=0)) / NUMBERS.std(axis=0)]
    each += [(name == CARRIER)[:, None] for name in ("AA", "DL", "UA")]
    return np.hstack([*each, (PIXELS - PIXELS.mean(axis=0)) / PIXELS.std(axis=0)]).astype(float)


def test_a_binary_label():
    from sklearn.linear_model import LogisticRegression

    label = SIGNAL + GENERATOR.logistic(size=ROWS) > 0
    oracle = LogisticRegression(tol=1e-8, max_iter=1000).fit(wide(), label)
    found = fit_linear(rows(label), SCHEMA.fields, "label", AnswerSchema()).predict(rows(label))
    assert np.abs(found - oracle.predict_proba(wide())[:, 1]).max() < 2e-3


def test_classes():
    from sklearn.linear_model import LogisticRegression

    codes = np.digitize(SIGNAL + GENERATOR.normal(size=ROWS), [-1, 1])
    table = rows([CLASSES.classes[code] for code in codes])
    oracle = LogisticRegression(tol=1e-8, max_iter=1000).fit(wide(), codes)
    found = fit_linear(table, SCHEMA.fields, "label", CLASSES).predict(table)
    assert found.sum(axis=1) == pytest.approx(np.ones(ROWS))
    assert np.abs(found - oracle.predict_proba(wide())).max() < 2e-3


def test_a_number_far_from_zero():
    from sklearn.linear_model import Ridge

    label = 5000 + 100 * SIGNAL + GENERATOR.normal(0, 30, ROWS)
    regression = AnswerSchema(task="regression")
    oracle = Ridge(alpha=1.0).fit(wide(), label)
    found = fit_linear(rows(label), SCHEMA.fields, "label", regression).predict(rows(label))
    assert np.abs(found - oracle.predict(wide())).max() < 0.1


def test_words_of_a_text():
    texts = ["buy CHEAP pills now", "the list of next week", None, "cheap watches"] * 20
    label = [True, False, False, True] * 20
    table = pa.table({"body": texts, "label": label})
    model = fit_linear(table, [field("body", FieldKind.TEXT)], "label", AnswerSchema())
    asked = pa.table({"body": ["Cheap!", "a list", ""]})
    cheap, other, nothing = model.predict(asked)
    assert cheap > 0.5 > nothing > other


def test_rows_that_lack_everything_and_rows_beyond_every_range_have_an_answer():
    label = SIGNAL > 0
    model = fit_linear(rows(label), SCHEMA.fields, "label", AnswerSchema())
    odd = pa.table(
        {
            "first": pa.array([None, np.inf, 1e300]),
            "second": pa.array([None, -np.inf, 0.0]),
            "carrier": pa.array([None, "", "ZZ"]),
            "image": pa.array([None, [np.inf, 0, np.nan, 0], [0, 0, 0, 0]]),
        }
    )
    answers = model.predict(odd)
    assert np.isfinite(answers).all()
    far = odd.slice(2).set_column(0, "first", pa.array([NUMBERS[:, 0].max()]))
    assert model.predict(far) == pytest.approx(answers[2:])


@pytest.mark.parametrize("fields", [SCHEMA.fields, ()])
def test_rows_that_teach_nothing_are_refused(fields):
    with pytest.raises(ScoringError, match="do not differ"):
        fit_linear(rows(np.zeros(ROWS, bool)), fields, "label", AnswerSchema())
