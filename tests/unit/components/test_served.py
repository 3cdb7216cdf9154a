"""Served traffic of a window beside its batch predictions: the same figures from the same rows."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import text

from aios_platform.alerts.outbox import alerts
from aios_platform.components.model_lifecycle import served as served_traffic
from aios_platform.components.model_lifecycle.documents import find_document
from aios_platform.components.model_lifecycle.measuring import measure_window
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.served import (
    PERFORMANCE,
    document,
    measure_served,
    observe_served,
)
from aios_platform.components.model_lifecycle.tables import (
    served_drift_metadata,
    served_performance_metadata,
)
from aios_platform.contracts.datasets import FeatureField, FeatureSchema, FieldKind
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.monitoring.estimation import Calibration
from aios_platform.monitoring.performance import Performance
from aios_platform.monitoring.psi import reference_bins
from aios_platform.serving.recording import Recorder, ServedRows
from tests.unit.contracts.test_declaration import MINIMAL

pytestmark = pytest.mark.postgres
ROWS = 1200
KEY = "2013-10"
KNOWN = pa.timestamp("us", tz="UTC")
IDS = [f"t{n}" for n in range(ROWS)]
FIELDS = (
    FeatureField(name="size", kind=FieldKind.NUMERICAL, origin="request"),
    FeatureField(name="shape", kind=FieldKind.CATEGORICAL, origin="shapes"),
)
SIZES = np.random.default_rng(1).normal(5, 1, ROWS).astype(np.float32)
SHAPES = ["round", "flat", "bent"] * (ROWS // 3)
CHANCES = np.random.default_rng(0).beta(1, 2, ROWS).astype(np.float32)


@pytest.fixture
def names(tmp_path) -> Names:
    gate = {"slices": [{"column": "window"}, {"column": "shape"}], "min_slice_rows": 200}
    return Names(ModelDeclaration.model_validate(MINIMAL | {"gate": gate}), tmp_path)


@pytest.fixture
def window(names):
    return names.declaration.windows.window(KEY)


class Live:
    """What is known of a version: trained on rows like those that come."""

    importance = None

    def __init__(self, version):
        self.champion = type("Champion", (), {"version": version})
        self.training_set = type("Set", (), {"windows": ("2013-08",)})
        self.sample = frame()
        self.bins = reference_bins(frame(), FIELDS)
        answers = pa.table({"probability": CHANCES})
        field = FeatureField(name="probability", kind=FieldKind.NUMERICAL, origin="prediction")
        self.prediction_bins = reference_bins(answers, [field])

    def calibration_without(self, key):
        return Calibration(
            intercept=0, slope=1, covariance=(1e-4, 0, 1e-4), rows=9000, windows=("2013-09",)
        )


class Versions:
    """The references of the versions."""

    def __init__(self):
        self.of_version = {"1": Live("1"), "2": Live("2")}.__getitem__


def frame(scale=1.0):
    return pa.table({"size": pa.array(SIZES * scale, pa.float32()), "shape": SHAPES})


@pytest.fixture
def batch_scored(names, store, window):
    """The window, scored in batch by version 1, with every label."""
    broke = np.random.default_rng(2).random(ROWS) < CHANCES
    at = [window.start + timedelta(hours=1)] * ROWS
    store.write(names.frames, KEY, frame().append_column("id", pa.array(IDS)))
    store.write(
        names.raw_rows,
        KEY,
        pa.table(
            {"id": IDS, "at": pa.array(at, KNOWN), "broke": broke,
             "broke_at": pa.array([window.start + timedelta(days=1)] * ROWS, KNOWN)}
        ),
    )  # fmt: skip
    store.write(
        names.predictions,
        KEY,
        pa.table(
            {"id": IDS, "probability": CHANCES, "model_version": ["1"] * ROWS,
             "prediction_time": pa.array(at, KNOWN)}
        ),
        inputs={"model_version": "1"},
    )  # fmt: skip


@pytest.fixture
def serve(own_database, window):
    def serve(rows=slice(None), version="1", scale=1.0, turned=False, hours=1):
        places = range(ROWS)[rows]
        chances = CHANCES[rows]
        recorder = Recorder(own_database)
        recorder.offer(
            ServedRows(
                "toy", version, "d" * 64, FeatureSchema(fields=FIELDS),
                [f"r{p}" for p in places], [0] * len(places), [IDS[p] for p in places],
                window.end.timestamp(),
                np.full(len(places), (window.start + timedelta(hours=hours)).timestamp()),
                SIZES[rows, None] * np.float32(scale), ([SHAPES[p] for p in places],),
                1 - chances if turned else chances, ["full"] * len(places),
            )
        )  # fmt: skip
        recorder.close(5)

    return serve


@pytest.fixture
def offline(monkeypatch):
    """The offline store: it gives the batch frame's values at any moment."""
    asked = []

    def features_at(declaration, window, wanted, store, feature_store):
        asked.append(wanted)
        places = [IDS.index(name) for name in wanted["id"].to_pylist() if name in IDS]
        return frame().take(places).append_column("id", pa.array([IDS[p] for p in places]))

    monkeypatch.setattr("aios_platform.features.point_in_time.features_at", features_at)
    return asked


@pytest.fixture
def measure(names, store, own_database, window):
    def run(days=2):
        as_of = window.end + timedelta(days=days)
        return measure_served(names, store, own_database, window, as_of, Versions())

    return run


@pytest.fixture
def observe(names, store, own_database, window):
    def run():
        return observe_served(
            names, store, own_database, window, Versions(), lambda: None,
            now=window.end, past=False,
        )  # fmt: skip

    return run


def told(performance):
    """What does not depend on where the predictions were kept."""
    return performance.model_dump(exclude={"predictions_digest", "estimate", "estimate_scores"})


def test_the_same_answers_give_the_same_figures_served_or_in_batch(
    batch_scored, serve, measure, names, store, window
):
    serve()
    as_of = window.end + timedelta(days=2)
    batch = measure_window(names, store, window, as_of, Live("1"))
    [(traffic, served)] = measure().found
    assert (traffic.version, served.status, served.matched) == ("1", "measured", ROWS)
    assert served.metrics == batch.metrics
    assert (served.low, served.high) == (batch.low, batch.high)
    assert served.by_slice == batch.by_slice
    assert served.estimate.metrics.keys() == batch.estimate.metrics.keys()
    assert told(served) == told(batch)


def test_served_traffic_leaves_what_is_said_of_the_batch_as_it_was(
    batch_scored, serve, measure, names, store, window
):
    as_of = window.end + timedelta(days=2)
    before = measure_window(names, store, window, as_of, Live("1"))
    serve(turned=True)
    measure()
    assert measure_window(names, store, window, as_of, Live("1")) == before
    assert find_document(names, store, PERFORMANCE, KEY, Performance) == before


def test_without_served_traffic_nothing_is_written_and_nothing_shown(
    batch_scored, serve, measure, observe, offline, store
):
    assert served_performance_metadata(measure()) == {}
    assert served_drift_metadata(observe()) == {}
    assert store.names("observations/toy/**", ".json") == []
    assert not offline
    serve()
    observe()
    assert len(store.names("observations/toy/**", ".json")) == 2


def test_each_version_has_figures_of_its_own_rows(batch_scored, serve, measure):
    serve(slice(0, 800), "1")
    serve(slice(400, None), "2", turned=True)
    found = {traffic.version: performance for traffic, performance in measure().found}
    assert {version: each.matched for version, each in found.items()} == {"1": 800, "2": 800}
    assert found["1"].metrics["roc_auc"] > 0.5 > found["2"].metrics["roc_auc"]
    table = served_performance_metadata(measure())["served"].records
    assert [record.data["version"] for record in table] == ["1", "2"]
    assert [record.data["by_source"] for record in table] == ["full 800"] * 2


def test_labels_that_mature_restate_the_figures_and_keep_their_history(
    batch_scored, serve, measure, names, store
):
    serve()
    [(_, early)] = measure(days=0).found
    assert (early.status, early.metrics, early.revision) == ("not_matured", {}, 1)
    assert early.estimate.calibrated_on == ("2013-09",)
    [(_, done)] = measure().found
    assert (done.status, done.revision, done.estimate) == ("measured", 2, early.estimate)
    assert done.estimate_scores["roc_auc"].inside
    assert measure(days=9).found[0][1] == done, "nothing new is no revision"
    serve(slice(0, 300), turned=True, hours=2)
    [(_, again)] = measure(days=10).found
    assert (again.revision, again.matched) == (3, ROWS), "the last answer counts, not both"
    assert again.metrics["roc_auc"] < done.metrics["roc_auc"]
    kept = store.names(f"observations/toy/{document('performance_revisions', '1')}/{KEY}", ".json")
    assert len(kept) == 3
    assert find_document(names, store, document(PERFORMANCE, "1"), KEY, Performance) == again


def test_a_killed_measurement_is_finished_by_the_next(
    batch_scored, serve, measure, store, monkeypatch
):
    serve()
    with monkeypatch.context() as patched:
        patched.setattr(store, "write_named", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            measure()
    [(_, again)] = measure().found
    assert again.revision == 1


def test_drift_is_of_every_answer_and_skew_of_each_row_once(
    batch_scored, serve, observe, offline, own_database, window
):
    serve()
    serve(slice(0, 600), hours=2)
    [(traffic, found)] = observe().found
    assert traffic.answers.num_rows == ROWS + 600
    assert (found.drift.status, found.drift.rows) == ("stable", ROWS + 600)
    assert found.drift.prediction.status == "stable"
    assert (found.skew.rows, found.skew.skewed) == (ROWS, ())
    moments = offline[0]["at"].to_pylist()
    assert [(moment - window.start) // timedelta(hours=1) for moment in sorted(moments)] == (
        [1] * 600 + [2] * 600
    ), "each at the moment at which it was asked for"
    assert not alerts(own_database)


def test_a_skewed_feature_is_told_once_and_taken_back_by_a_window_without(
    batch_scored, serve, observe, offline, own_database
):
    serve(scale=3.0)
    [(_, found)] = observe().found
    observe()
    assert [feature.name for feature in found.skew.skewed] == ["size"]
    assert found.drift.drifted == ("size",)
    [raised] = alerts(own_database)
    assert (raised.alert.kind, raised.alert.subject, raised.count) == ("serving_skew", "toy", 2)
    assert raised.alert.evidence["size"]["share"] == 1.0
    assert raised.alert.evidence["window"] == KEY
    shown = served_drift_metadata(observe())
    assert "size in 100%" in shown["served_version_1_skew"]
    first = shown["served_version_1_skew_by_feature"].records[0].data
    assert (first["feature"], first["skewed"]) == ("size", "yes")
    with own_database.begin() as connection:
        connection.execute(text("DELETE FROM served_batch"))
    serve()
    observe()
    assert alerts(own_database, open_only=True) == []


def test_skew_is_measured_on_a_sample(batch_scored, serve, observe, offline, names):
    serve()
    record = names.declaration.serving.record.model_copy(update={"skew_rows": 150})
    serving = names.declaration.serving.model_copy(update={"record": record})
    object.__setattr__(
        names, "declaration", names.declaration.model_copy(update={"serving": serving})
    )
    [(_, found)] = observe().found
    assert found.skew.rows == 150


def test_a_damaged_record_is_said_and_stops_nothing(
    batch_scored, serve, measure, observe, offline, own_database, caplog
):
    serve()
    with own_database.begin() as connection:
        connection.execute(text("UPDATE served_batch SET content = '\\x00'"))
    for shown in (served_performance_metadata(measure()), served_drift_metadata(observe())):
        assert "cannot be read" in shown["served_failed"]
    assert "cannot be read" in caplog.text
    assert served_traffic.logger.name in caplog.text
