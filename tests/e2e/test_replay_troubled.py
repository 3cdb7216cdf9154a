"""Replays in which something goes wrong: trainings that fail, late and wrong labels and windows.

And one that goes well, seen by callers of the gateway.

Each goes on from the home in which a first version has just gone live, trained through March 2013
and examined on April.
"""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
import yaml

from aios_platform.declarations import COMPONENT
from aios_platform.errors import TrainingError
from aios_platform.features import parity
from aios_platform.features.pinned_sets import recall
from aios_platform.features.service import service_contract
from aios_platform.features.sources import pinned
from aios_platform.inference.session import Session
from aios_platform.serving.engine import TOLERANCE
from aios_platform.settings import settings
from tests.e2e import small_flights
from tests.e2e.replaying import small
from tests.e2e.small_flights import UPSET
from tests.faults.gateway_process import gateway

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]
QUIET = {"new_data": 100.0}


def test_a_training_that_fails_three_times_is_given_up_once_and_aloud_and_life_goes_on(
    again, monkeypatch
):
    replay = again("2013-06", retrain={"new_data": 0.5})
    live = replay.champion()

    def broken(*arguments, **named):
        raise TrainingError("The loss is not a number.", remedy="Look at the data.")

    monkeypatch.setattr("aios_platform.training.trainer.train", broken)
    runs = replay.until(matured="2013-05")
    assert [(str(run.run.job), bool(run.failure)) for run in runs] == [
        ("measure", False), ("retrain", True), ("retrain", True), ("retrain", True),
    ]  # fmt: skip
    assert "The loss is not a number" in runs[-1].failure
    [row] = replay.rows("gave_up")
    assert row.payload["cause"] == "decision on window 2013-05"
    assert row.payload["runs"] == [run.run_id for run in runs[1:]]
    assert replay.alerts("retraining_failed") == ["decision on window 2013-05"]

    [scored] = replay.until(closed="2013-06")
    assert str(scored.run.job) == "score"
    [measured] = replay.until(matured="2013-06")
    assert str(measured.run.job) == "measure"
    [decision] = replay.decisions("2013-06")
    assert (decision["action"], decision["cause"]) == ("hold", "back_off")
    assert decision["evidence"]["trainings_in_vain"] == 1
    assert decision["evidence"]["trainings"] == 2, "it spent one of the budget's, too"
    assert replay.champion() == live
    [version] = replay.versions(replay.names.predictions, "2013-06")
    assert version.inputs["model_version"] == live.version


def test_labels_that_come_two_months_late_restate_the_figures_and_the_decision(again):
    label = small_flights.attributes()["label"] | {"corrections_windows": 2}
    replay = again("2013-07", retrain=QUIET, label=label)
    UPSET["2013-05"] = small_flights.labels_later(60)
    replay.until(closed="2013-05")
    [first] = replay.performance("2013-05")
    assert str(first.status) == "not_matured"
    assert first.estimate is not None, "what the scores promise is all there is"
    assert replay.faults("2013-05") == (), "what is yet to come is no fault"
    replay.until(matured="2013-05")
    second = replay.performance("2013-05")[-1]
    assert (str(second.status), second.matched) == ("not_enough_data", 0)
    [decision] = replay.decisions("2013-05")
    assert (decision["action"], decision["cause"]) == ("hold", "data_fault")
    for kind in ("labels_late", "data_fault"):
        assert replay.alerts(kind, open_only=True) == ["2013-05"]

    replay.until(matured="2013-06")
    assert replay.alerts("labels_late", open_only=True) == ["2013-05"]
    replay.until(matured="2013-07")
    *_, last = told = replay.performance("2013-05")
    assert str(last.status) == "measured"
    assert last.matched > 1300
    assert [each.revision for each in told] == list(range(1, len(told) + 1))
    assert "status not_enough_data -> measured" in " ".join(each.restated for each in told)
    assert last.estimate == first.estimate
    decisions = replay.decisions("2013-05")
    assert [each["revision"] for each in decisions] == list(range(1, len(decisions) + 1))
    assert decisions[0] == decision, "what was decided stays on record"
    assert decisions[-1]["cause"] == "healthy"
    for kind in ("labels_late", "data_fault"):
        assert replay.alerts(kind) == ["2013-05"], "it was told once"
        assert replay.alerts(kind, open_only=True) == [], "and taken back"
    [predicted] = replay.versions(replay.names.predictions, "2013-05")
    assert predicted.version == 1


def test_labels_that_are_wrong_are_counted_and_left_out(again):
    """June's labels: two that contradict each other, of unknown flights, known before they flew.

    May's are corrected a month later, which restates it.
    """
    replay = again("2013-06", retrain=QUIET)
    replay.until(matured="2013-05")
    [before] = replay.decisions("2013-05")
    replay.until(closed="2013-06")
    UPSET["2013-05"] = small_flights.labels_turned(every=10)
    UPSET["2013-06"] = small_flights.wrong_labels
    [measured] = replay.until(matured="2013-06")
    assert not measured.failure

    june = replay.performance("2013-06")[-1]
    assert str(june.status) == "measured"
    assert june.premature_labels == 3
    assert june.unpredicted_labels == 4
    # Both tellings of a flight are in quarantine, where an analyst finds them with their reason.
    assert june.contradictory_labels == 0
    assert june.unlabelled_predictions >= 5
    [quarantine] = [
        version.rows for version in replay.versions("flight_delay/quarantine/flights", "2013-06")
    ][-1:]
    assert quarantine == 10

    *_, first, second = replay.performance("2013-05")
    assert second.metrics["roc_auc"] != first.metrics["roc_auc"]
    assert second.matched == first.matched
    assert second.revision == first.revision + 1
    old, new = replay.decisions("2013-05")
    assert old == before
    assert (new["revision"], new["evidence"]["observed"]) == (2, second.metrics["roc_auc"])


def test_windows_that_come_late_or_are_refused_stop_none_after_them(again):
    source = small_flights.attributes()["source"]
    replay = again("2013-08", retrain=QUIET, source=source)
    UPSET["2013-05"] = small_flights.not_there
    UPSET["2013-06"] = small_flights.without_carrier
    runs = replay.until(closed="2013-05")
    assert [(run.run.first, run.failure) for run in runs] == [("2013-05", "")]
    assert replay.versions(replay.names.raw_rows, "2013-05") == []
    replay.until(matured="2013-05")
    assert replay.alerts("window_late") == [], "48 hours are its due"

    # Refused at its first delivery, and asked for again when it is good: two days later.
    refused, _ = replay.until(closed="2013-06")
    assert "the column 'carrier' is missing" in refused.failure
    assert replay.alerts("window_rejected", open_only=True) == ["2013-06"]
    assert replay.alerts("window_late", open_only=True) == ["2013-05"]
    del UPSET["2013-06"]
    again_asked = [run for run in replay.until(matured="2013-06") if run.run.first == "2013-06"]
    assert "asked for again" in again_asked[0].run.cause
    assert replay.alerts("window_rejected", open_only=True) == []
    [june] = replay.versions(replay.names.predictions, "2013-06")
    assert june.rows == replay.versions(replay.names.raw_rows, "2013-06")[-1].rows
    assert [d["window"] for d in replay.decisions("2013-06")] == ["2013-06"]

    # July is scored while May is not there; its repetition is refused, and July stays as it was.
    replay.until(closed="2013-07")
    [july] = replay.versions(replay.names.raw_rows, "2013-07")
    UPSET["2013-07"] = small_flights.without_carrier
    runs = replay.until(matured="2013-07")
    assert [run.failure for run in runs] == [""] * len(runs)
    assert replay.versions(replay.names.raw_rows, "2013-07") == [july]
    assert replay.alerts("window_rejected", open_only=True) == ["2013-07"]
    assert str(replay.performance("2013-07")[-1].status) == "measured", "by what is known of it"
    del UPSET["2013-07"]

    # Two months late May comes, out of order: it and the features of June, whose history it is.
    del UPSET["2013-05"]
    table = "flight_delay/features/carrier_delays"
    features = replay.versions(table, "2013-06")
    replay.until(closed="2013-08")
    assert len(replay.versions(table, "2013-06")) == len(features) + 1
    assert replay.versions(replay.names.raw_rows, "2013-05")
    [may] = replay.versions(replay.names.predictions, "2013-05")
    assert may.inputs["model_version"] == replay.champion().version
    assert replay.alerts("window_late", open_only=True) == []
    assert len(replay.versions(replay.names.raw_rows, "2013-07")) == 2, "July's is good again"
    assert replay.alerts("window_rejected", open_only=True) == []
    assert replay.alerts("data_fault") == []
    assert replay.rows("gave_up") == []


def test_a_window_with_a_data_fault_is_an_alarm_and_is_never_trained_on(again):
    from aios_platform.components.model_lifecycle.candidates import pin_training_set

    replay = again("2013-08", retrain={"new_data": 0.1})
    live = replay.champion()
    UPSET["2013-05"] = small_flights.in_kilometres
    UPSET["2013-06"] = small_flights.nearly_halved
    UPSET["2013-07"] = small_flights.a_third_twice
    UPSET["2013-08"] = small_flights.minutes_shifted
    runs = replay.until(matured="2013-05")
    runs += replay.until(matured="2013-08", at_once=True)
    assert {str(run.run.job) for run in runs} == {"score", "measure"}
    assert [run.failure for run in runs] == [""] * len(runs), "a fault is an alarm, no failed run"
    broken = ["2013-05", "2013-06", "2013-07", "2013-08"]
    assert [set(replay.faults(window)) for window in broken] == [
        {"unit"}, {"rows"}, {"repeated"}, {"relation"},
    ]  # fmt: skip
    for window in broken:
        [decision] = replay.decisions(window)
        assert (decision["action"], decision["cause"]) == ("hold", "data_fault")
        assert decision["alarm"]
    assert replay.alerts("data_fault", open_only=True) == broken
    assert replay.champion() == live
    clock = replay.names.declaration.windows.window("2013-08").end + timedelta(days=2)
    pinned, _ = pin_training_set(replay.names, replay.stores, clock)
    used = [*pinned.windows, *pinned.exam_windows]
    assert used == ["2013-01", "2013-02", "2013-03", "2013-04"]


def test_a_year_of_windows_as_they_are_has_no_data_fault(store):
    from aios_platform.components.model_lifecycle.deliveries import note_read
    from aios_platform.components.model_lifecycle.faults import search_faults
    from aios_platform.data.ingest import ingest_window

    names = small()
    year = names.declaration.windows.windows(datetime(2014, 2, 1, tzinfo=UTC))
    assert len(year) == 12
    for window in year:
        clock = window.end + timedelta(days=2)
        ingest_window(names.declaration, window, store, clock=lambda at=clock: at, as_of=clock)
        note_read(names, store, window.key, clock)
        assert search_faults(names, store, window.key).faults == ()


def test_a_window_without_labels_promotes_nobody(again):
    """Its other columns are complete; without labels it is no exam, and teaches nothing."""
    replay = again("2013-06", retrain={"new_data": 0.1})
    live = replay.champion()
    UPSET["2013-05"] = small_flights.without_labels
    _, trained = replay.until(matured="2013-05")
    assert str(replay.performance("2013-05")[-1].status) == "not_enough_data"
    assert replay.alerts("labels_late", open_only=True) == ["2013-05"]
    assert (str(trained.run.job), trained.failure) == ("retrain", "")
    verdict = replay.rows("verdict")[-1].payload["verdict"]
    assert (verdict["decision"], verdict["exam_windows"]) == ("inconclusive", ["2013-04"])
    assert replay.champion() == live


def test_a_promotion_of_the_replay_is_served_without_a_restart_and_answers_as_batch_inference_does(
    again, tmp_path
):
    replay = again("2013-06", retrain={"new_data": 0.5})
    declared = replay.names.declaration.model_dump(mode="json")
    (tmp_path / "defs" / replay.names.model).mkdir(parents=True)
    (tmp_path / "defs" / replay.names.model / "defs.yaml").write_text(
        yaml.safe_dump({"type": COMPONENT, "attributes": declared})
    )
    first = replay.champion()
    stores = replay.stores
    with gateway(
        tmp_path / "gateway",
        database=stores.database,
        artifacts=settings().artifact_root,
        defs=tmp_path / "defs",
    ) as serving:
        assert serving.ask("GET", "/v1/models").json["models"][0]["version"] == first.version
        replay.until(matured="2013-05")
        second = replay.champion()
        assert second.version != first.version
        serving.until(
            lambda: serving.ask("GET", "/v1/models").json["models"][0]["version"] == second.version
        )

        # The frame that batch inference scored, as it is.
        replay.until(closed="2013-06")
        [scored] = replay.versions(replay.names.predictions, "2013-06")
        batch = stores.artifacts.read(scored)
        assert set(batch["model_version"].to_pylist()) == {second.version}
        frame = stores.artifacts.read(stores.artifacts.require(replay.names.frames, "2013-06"))
        features = recall(stores.artifacts, replay.names.model, second.training_set_digest).features
        served = serving.ask(
            "POST",
            f"/v1/models/{replay.names.model}:predict",
            stream_of(frame.select([*features.names, "flight_id"])),
            {"content-type": "application/vnd.apache.arrow.stream"},
        )
        answers = pa.ipc.open_stream(served.body).read_all()
        assert answers["flight_id"].to_pylist() == batch["flight_id"].to_pylist()
        assert answers["probability"].to_pylist() == batch["probability"].to_pylist()

        # Keys alone: the gateway reads the features; batch inference joins them as of that moment.
        entities, joined = offline_rows(replay)
        session = Session(stores.artifacts.get(second.model_digest, ".onnx"))
        wanted = session.predict(joined.select(list(features.names)))
        inputs = serving.ask("GET", f"/v1/models/{replay.names.model}").json["inputs"]
        rows = [
            {name: as_sent(value) for name, value in row.items() if name in inputs}
            for row in entities.to_pylist()
        ]
        together = serving.predict(replay.names.model, {"instances": rows})
        assert together.json["version"] == second.version
        assert {answer["source"] for answer in together.json["predictions"]} == {"full"}
        found = [answer["probability"] for answer in together.json["predictions"]]
        assert found == pytest.approx(wanted.tolist(), abs=TOLERANCE)
        alone = serving.predict(replay.names.model, {"instance": rows[0]})
        assert alone.json["prediction"]["probability"] == pytest.approx(found[0], abs=TOLERANCE)


def offline_rows(replay):
    """Rows of the newest window as of its end: what is sent, and with the joined features."""
    contract = service_contract(replay.names.declaration, replay.stores.features)
    store, declared = replay.stores.artifacts, replay.names.declaration
    moment = declared.windows.window("2013-06").end - parity.SECOND
    entities = parity._entities(declared, contract, store, "2013-06", moment, 100)
    with pinned(parity._reachable(declared, contract, store, moment)):
        joined = replay.stores.features.get_historical_features(
            entity_df=entities, features=contract.service
        ).to_arrow()
    return entities, joined


def stream_of(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def as_sent(value):
    return value.isoformat() if isinstance(value, datetime) else value
