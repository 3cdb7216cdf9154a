"""Vectors and texts drift by what they are like, not by single pixels or words."""

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.contracts.answers import AnswerSchema
from aios_platform.contracts.datasets import FeatureField, FieldKind
from aios_platform.contracts.surveillance import Monitoring
from aios_platform.monitoring.drift import DriftStatus, detect, prediction_bins, prediction_field
from aios_platform.monitoring.importance import permutation_importance
from aios_platform.monitoring.psi import reference_bins
from aios_platform.monitoring.report import drift_page
from aios_platform.monitoring.statistics import measured_column, measured_importance

IMAGE = FeatureField(name="image", kind=FieldKind.VECTOR, origin="request", length=4)
MAIL = FeatureField(name="mail", kind=FieldKind.TEXT, origin="request")


def frame(rows, seed, *, brighter=0.0, longer=1):
    random = np.random.default_rng(seed)
    images = random.normal(1 + brighter, 0.5, (rows, 4)).clip(0)
    mails = [" ".join(["word"] * int(n) * longer) for n in random.integers(1, 30, rows)]
    return pa.table(
        {
            "image": pa.array([None, *images[1:].tolist()], pa.list_(pa.float32(), 4)),
            "mail": pa.array([None, *mails[1:]]),
        }
    )


def test_statistics_are_what_they_say():
    table = pa.table(
        {
            "image": pa.array([[0, 0, 4, 4], None], pa.list_(pa.float32(), 4)),
            "mail": ["Ab 1, é", None],
        }
    )
    found = {
        name: measured_column(table, name).to_pylist()
        for name in (
            "image.mean", "image.deviation", "image.zeros",
            "mail.characters", "mail.words", "mail.letters", "mail.digits",
        )
    }  # fmt: skip
    assert found == {
        "image.mean": [2.0, None],
        "image.deviation": [2.0, None],
        "image.zeros": [0.5, None],
        "mail.characters": [7, None],
        "mail.words": [3, None],
        "mail.letters": [pytest.approx(3 / 7), None],
        "mail.digits": [pytest.approx(1 / 7), None],
    }


def test_a_feature_shares_its_weight_among_its_statistics():
    names = ["image.mean", "image.deviation", "size"]
    assert measured_importance({"image": 0.8, "size": 0.2}, names) == {
        "image.mean": 0.4, "image.deviation": 0.4, "size": 0.2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "drifted"),
    [
        ({}, set()),
        ({"brighter": 1.0}, {"image.mean"}),
        ({"longer": 3}, {"mail.words", "mail.characters"}),
    ],
)
def test_drift_of_images_and_texts_is_seen_and_shown(change, drifted):
    past, now = frame(5_000, 0), frame(2_000, 1, **change)
    report = detect(
        model="m", window="w", frame=now, reference=reference_bins(past, [IMAGE, MAIL]),
        monitoring=Monitoring(), reference_sample=past, importance={"image": 0.9, "mail": 0.1},
    )  # fmt: skip
    assert drifted <= set(report.drifted)
    assert bool(drifted) == bool(report.drifted)
    assert sum(c.importance or 0 for c in report.features) == pytest.approx(1)
    page = drift_page(
        frame=now, reference=past, fields=[IMAGE, MAIL], monitoring=Monitoring(), report=report
    )
    assert page is not None
    assert b"image.mean" in page.html


def test_answers_of_every_task_are_compared():
    random = np.random.default_rng(0)
    three = AnswerSchema(task="multiclass_classification", classes=("a", "b", "c"))
    before = random.dirichlet((5, 1, 1), 5_000)
    bins = prediction_bins(before.astype(np.float32), three)
    assert prediction_field(three).name == "predicted"
    for chances, status in [((5, 1, 1), DriftStatus.STABLE), ((1, 1, 5), DriftStatus.DRIFTED)]:
        likeliest = np.array(three.classes)[random.dirichlet(chances, 2_000).argmax(axis=1)]
        found = detect(
            model="m", window="w", frame=frame(2_000, 1),
            reference=reference_bins(frame(5_000, 0), [IMAGE]), monitoring=Monitoring(),
            predictions=pa.table({"predicted": likeliest}), prediction_reference=bins,
        ).prediction  # fmt: skip
        assert found is not None
        assert found.status is status
    numbers = AnswerSchema(task="regression", quantiles=(0.5,))
    columns = random.normal(size=(5_000, 2)).astype(np.float32)
    (value,) = prediction_bins(columns, numbers).columns
    assert value.name == "value"


def test_importance_of_a_vector_and_of_a_number_to_a_regression():
    random = np.random.default_rng(0)
    images = random.normal(size=(500, 4)).astype(np.float32)
    noise = random.normal(size=500)
    table = pa.table(
        {
            "image": pa.array(images.tolist(), pa.list_(pa.float32(), 4)),
            "noise": noise,
            "truth": images.sum(axis=1).astype(np.float64),
        }
    )

    def predict(rows):
        flat = rows["image"].combine_chunks().flatten().to_numpy().reshape(-1, 4)
        return flat.sum(axis=1).astype(np.float32)

    found = permutation_importance(
        predict, table, "truth", ["image", "noise"], answers=AnswerSchema(task="regression")
    )
    assert found.weights == {"image": pytest.approx(1), "noise": pytest.approx(0)}
