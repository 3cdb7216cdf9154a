"""Performance of a window over its life: estimated, measured, corrected, scored anew."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from aios_platform.components.model_lifecycle.documents import read_document
from aios_platform.components.model_lifecycle.measuring import (
    estimate_record,
    measure_window,
    revisions,
)
from aios_platform.components.model_lifecycle.names import Names
from aios_platform.components.model_lifecycle.tables import performance_metadata, revision_table
from aios_platform.contracts.declaration import ModelDeclaration
from aios_platform.monitoring.estimation import Calibration
from aios_platform.monitoring.performance import Performance
from tests.unit.contracts.test_declaration import MINIMAL

ROWS = 1500
KEY = "2013-10"
KNOWN = pa.timestamp("us", tz="UTC")


@pytest.fixture
def names(tmp_path) -> Names:
    gate = {"slices": [{"column": "window"}, {"column": "shape"}], "min_slice_rows": 200}
    return Names(ModelDeclaration.model_validate(MINIMAL | {"gate": gate}), tmp_path)


@pytest.fixture
def window(names):
    return names.declaration.windows.window(KEY)


class Live:
    """What is known of a live version; its calibration says when it was asked."""

    class champion:  # noqa: N801
        version = "1"

    class training_set:  # noqa: N801
        windows = ("2013-08",)

    def __init__(self):
        self.asked = 0

    def calibration_without(self, key):
        self.asked += 1
        assert key == KEY
        return Calibration(
            intercept=0, slope=1, covariance=(1e-4, 0, 1e-4), rows=9000, windows=("2013-09",)
        )


def score(names, store, window, version="1", rows=ROWS):
    generator = np.random.default_rng(0)
    ids = [f"t{n}" for n in range(rows)]
    store.write(names.frames, KEY, pa.table({"id": ids, "shape": ["round", "flat", None] * 500}))
    store.write(
        names.predictions,
        KEY,
        pa.table(
            {
                "id": ids,
                "probability": generator.beta(1, 2, rows).astype(np.float32),
                "model_version": [version] * rows,
                "prediction_time": pa.array([window.start] * rows, KNOWN),
            }
        ),
        inputs={"model_version": version},
    )


def deliver(names, store, window, turned=0, later=0):
    """The truth of every row; some corrected, some known only two months later."""
    generator = np.random.default_rng(0)
    chances = generator.beta(1, 2, ROWS).astype(np.float32)
    broke = generator.random(ROWS) < chances
    broke[:turned] = ~broke[:turned]
    known = [window.end + timedelta(days=60)] * later + [window.start + timedelta(days=1)] * (
        ROWS - later
    )
    store.write(
        names.raw_rows,
        KEY,
        pa.table(
            {"id": [f"t{n}" for n in range(ROWS)], "broke": broke,
             "broke_at": pa.array(known, KNOWN)}
        ),
    )  # fmt: skip


def test_an_estimate_comes_first_is_kept_and_is_scored_when_the_labels_are_complete(
    names, store, window
):
    score(names, store, window)
    deliver(names, store, window)
    live = Live()
    early = measure_window(names, store, window, window.end, live)
    assert early.status == "not_matured"
    assert early.metrics == {}
    assert early.estimate.calibrated_on == ("2013-09",)
    assert "No estimate" in estimate_record(names, store)
    done = measure_window(names, store, window, window.end + timedelta(days=1), live)
    assert live.asked == 1, "an estimate is never made again, least of all with labels at hand"
    assert done.estimate == early.estimate
    assert done.estimate_scores["roc_auc"].inside
    assert "over 1 windows; in 1 of them" in estimate_record(names, store)
    table = performance_metadata(done)["estimate"].records
    assert {record.data["inside"] for record in table} <= {"yes", "no"}
    early_table = performance_metadata(early)["estimate"].records
    assert {record.data["inside"] for record in early_table} == {"labels not complete"}


def test_late_and_corrected_labels_restate_the_figures_and_keep_their_history(names, store, window):
    score(names, store, window)
    deliver(names, store, window, later=300)
    at = window.end + timedelta(days=2)
    first = measure_window(names, store, window, at)
    assert (first.revision, first.matched, first.unlabelled_predictions) == (1, 1200, 300)
    assert measure_window(names, store, window, at + timedelta(days=1)).revision == 1
    second = measure_window(names, store, window, window.end + timedelta(days=61))
    assert (second.revision, second.matched) == (2, ROWS)
    assert "matched 1200 -> 1500" in second.restated
    deliver(names, store, window, turned=50)
    third = measure_window(names, store, window, window.end + timedelta(days=61))
    assert third.revision == 3
    assert third.truth_digest != second.truth_digest
    assert third.metrics["roc_auc"] < second.metrics["roc_auc"]
    assert revisions(names, store, KEY) == [first, second, third]
    rows = revision_table(revisions(names, store, KEY)).records
    assert [row.data["revision"] for row in rows] == [3, 2, 1]


def test_another_versions_figures_stand_beside_those_of_the_first(names, store, window):
    deliver(names, store, window)
    for version in ("1", "2"):
        score(names, store, window, version)
        measure_window(names, store, window, window.end + timedelta(days=2), Live())
    first, second = revisions(names, store, KEY)
    assert (first.model_versions, second.model_versions) == (("1",), ("2",))
    assert second.restated.startswith("version 1 -> 2")
    assert first.estimate is not None
    assert second.estimate is None, "what is known is of version 1"


def test_figures_of_a_window_that_the_version_was_trained_on_say_so(names, store, window):
    score(names, store, window)
    deliver(names, store, window)
    at, live = window.end + timedelta(days=2), Live()
    assert not measure_window(names, store, window, at, live).trained_on
    live.training_set = type("Seen", (), {"windows": (KEY,)})
    again = measure_window(names, store, window, at, live)
    assert again.trained_on
    assert again.revision == 2, "it is another statement on the same window"


def test_a_killed_measurement_is_finished_by_the_next(names, store, window, monkeypatch):
    score(names, store, window)
    deliver(names, store, window)
    at = window.end + timedelta(days=2)
    with monkeypatch.context() as patched:
        patched.setattr(store, "write_named", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            measure_window(names, store, window, at)
    assert len(revisions(names, store, KEY)) == 1
    again = measure_window(names, store, window, at)
    assert again.revision == 1
    assert revisions(names, store, KEY) == [again]
    assert read_document(names, store, "performance", KEY, Performance) == again


def test_what_changes_between_a_kill_and_the_next_call_is_a_revision_of_its_own(
    names, store, window, monkeypatch
):
    score(names, store, window)
    deliver(names, store, window)
    at = window.end + timedelta(days=2)
    with monkeypatch.context() as patched:
        patched.setattr(store, "write_named", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            measure_window(names, store, window, at)
    deliver(names, store, window, turned=50)
    assert measure_window(names, store, window, at).revision == 2
    assert [each.revision for each in revisions(names, store, KEY)] == [1, 2]


def test_slices_of_the_gate_are_shown(names, store, window):
    score(names, store, window)
    deliver(names, store, window)
    result = measure_window(names, store, window, datetime(2014, 1, 1, tzinfo=UTC))
    assert set(result.by_slice) == {"shape=round", "shape=flat", "shape=missing"}
    assert sum(part.rows for part in result.by_slice.values()) == ROWS
    assert len(performance_metadata(result)["slices"].records) == 3
