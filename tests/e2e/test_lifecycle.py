"""One model through its whole life, in this process, on real data and real stores."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from aios_platform.artifacts import ArtifactStore
from aios_platform.components.model_lifecycle.runner import run_until_done
from aios_platform.contracts.decisions import Decision
from aios_platform.ledger.champions import champion_of
from aios_platform.ledger.entries import entries
from aios_platform.settings import settings
from tests.e2e import small_flights

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.timeout(600),
]
AS_OF = datetime(2013, 7, 10, tzinfo=UTC)
MONTHS = [f"2013-{month:02}" for month in range(1, 7)]


@pytest.fixture(scope="module")
def database(own_home):
    """A Postgres that nothing else has written to."""
    from aios_platform.database import database

    return database()


@pytest.fixture(scope="module")
def life(database):
    """The small model, run until nothing is left to do."""

    class Life:
        names = small_flights.names()
        store = ArtifactStore(settings().artifact_root)
        definitions = small_flights.definitions(names)

        def __init__(self, instance):
            self.instance = instance
            self.results = self.run()

        def run(self, as_of=AS_OF):
            return list(
                run_until_done(
                    self.names, self.definitions, self.instance, self.store, database, as_of
                )
            )

    with dg.DagsterInstance.ephemeral() as instance:
        yield Life(instance)


def test_a_brand_new_model_finds_its_own_order(life):
    assert [str(result.run.job) for result in life.results] == ["score", "retrain", "score"]
    ingest, retrain, score = (
        {stage.name: stage for stage in result.stages} for result in life.results
    )
    assert ingest["predictions"].skipped, "there was no champion to score with"
    assert not retrain["champion"].skipped
    assert not score["retrain_decision"].skipped


def test_the_first_champion_was_judged_on_windows_it_never_saw(life, database):
    champion = champion_of(database, life.names.model)
    assert champion.trained_through == "2013-04"
    [row] = entries(database, subject=life.names.model, kind="verdict")
    verdict = row.payload["verdict"]
    assert verdict["decision"] == Decision.PROMOTE
    assert verdict["exam_windows"] == ["2013-05", "2013-06"]
    assert champion.baseline["roc_auc"] > 0.6


def test_every_row_of_every_scored_window_has_one_prediction_of_the_champion(life, database):
    champion = champion_of(database, life.names.model)
    for key in ("2013-05", "2013-06"):
        raw = life.store.require(life.names.raw_rows, key)
        scored = life.store.read(life.store.require(life.names.predictions, key))
        assert scored.num_rows == raw.rows
        ids = life.store.read(raw, ["flight_id"])["flight_id"].to_pylist()
        assert scored["flight_id"].to_pylist() == ids
        assert set(scored["model_version"].to_pylist()) == {champion.version}
    assert life.store.keys(life.names.predictions) == ["2013-05", "2013-06"]


def test_a_model_version_can_be_followed_to_its_rows(life, database):
    from aios_platform.features.pinned_sets import recall

    champion = champion_of(database, life.names.model)
    pinned = recall(life.store, life.names.model, champion.training_set_digest)
    assert list(pinned.windows) == MONTHS[:4]
    assert pinned.digest == champion.training_set_digest
    for frame in pinned.frames:
        assert life.store.read(frame).num_rows == frame.rows
        assert any(key.startswith("flight_delay/features/") for key in frame.inputs)


def test_the_drift_report_is_a_page_and_its_figures_are_metadata(life):
    key = life.names.asset("drift")
    event = life.instance.get_latest_materialization_event(key)
    metadata = event.asset_materialization.metadata
    assert len(metadata["psi"].records) > 40
    path = metadata["report_file"].value
    page = open(path, encoding="utf-8").read()  # noqa: PTH123, SIM115
    assert "<html" in page.lower()
    assert str(metadata["report"].value).endswith(path.rsplit("/reports/", 1)[1])


def metadata_of(life, asset, window):
    from dagster import AssetRecordsFilter

    records = life.instance.fetch_materializations(
        AssetRecordsFilter(asset_key=life.names.asset(asset), asset_partitions=[window]), limit=1
    )
    return records.records[0].asset_materialization.metadata


def test_drift_is_weighted_by_what_the_champion_uses(life):
    metadata = metadata_of(life, "drift", "2013-06")
    rows = [record.data for record in metadata["psi"].records]
    weights = [row["importance"] for row in rows if row["column"] != "probability"]
    assert sum(weights) == pytest.approx(1, abs=0.01)
    assert all(row["adjusted_p"] != "" for row in rows if row["status"] == "drifted")
    assert metadata["data_faults"].value == "none"


def test_performance_was_estimated_from_other_windows_and_then_measured(life):
    for window, other in (("2013-05", "2013-06"), ("2013-06", "2013-05")):
        metadata = metadata_of(life, "performance", window)
        assert metadata["estimate_calibrated_on"].value == other
        [auc] = [r.data for r in metadata["estimate"].records if r.data["metric"] == "roc_auc"]
        assert auc["measured"] == pytest.approx(metadata["roc_auc"].value, abs=1e-3)
        assert 0.5 < auc["low"] < auc["estimated"] < auc["high"] < 1
    assert metadata["matured_through"].value == "2013-06"
    assert len(metadata["revisions"].records) == 1


def test_the_decisions_are_shown_as_a_table_with_the_trend(life):
    metadata = metadata_of(life, "retrain_decision", "2013-06")
    assert {record.data["window"] for record in metadata["decisions"].records} == {
        "2013-05",
        "2013-06",
    }
    assert "data:image/png;base64," in metadata["trend"].value


def test_each_matured_window_has_one_decision_in_the_ledger(life, database):
    rows = entries(database, subject=life.names.model, kind="retrain_decision")
    assert sorted(row.payload["decision"]["window"] for row in rows) == ["2013-05", "2013-06"]


def test_running_it_again_does_nothing(life, database):
    before = entries(database, subject=life.names.model, limit=1000)
    runs = life.instance.get_runs_count()
    assert life.run() == []
    assert life.instance.get_runs_count() == runs
    assert entries(database, subject=life.names.model, limit=1000) == before


def test_materializing_an_unchanged_window_again_changes_nothing_downstream(life):
    datasets = [life.names.raw_rows, *life.names.feature_tables, life.names.predictions]
    before = [life.store.history(dataset, "2013-06") for dataset in datasets]
    job = life.definitions.resolve_job_def(life.names.job("score"))
    result = job.execute_in_process(
        instance=life.instance, partition_key="2013-06", tags={"aios/as_of": AS_OF.isoformat()}
    )
    assert result.success
    assert [life.store.history(dataset, "2013-06") for dataset in datasets] == before


def test_served_traffic_is_measured_beside_the_batch_and_changes_nothing_of_it(life, database):
    import numpy as np

    from aios_platform.features.pinned_sets import recall
    from aios_platform.serving.recording import Recorder, ServedRows

    champion = champion_of(database, life.names.model)
    features = recall(life.store, life.names.model, champion.training_set_digest).features
    frame = life.store.read(life.store.require(life.names.frames, "2013-06"))
    scored = life.store.read(life.store.require(life.names.predictions, "2013-06"))
    numbers = [frame[name].to_numpy() for name in features.numerical]
    moments = frame["prediction_time"].to_numpy().astype("datetime64[us]").astype(np.int64) / 1e6
    recorder = Recorder(database)
    recorder.offer(
        ServedRows(
            model=life.names.model,
            version=champion.version,
            model_digest=champion.model_digest,
            features=features,
            request_ids=[f"r{place}" for place in range(frame.num_rows)],
            places=[0] * frame.num_rows,
            row_ids=frame["flight_id"].to_pylist(),
            served_at=AS_OF.timestamp(),
            moments=moments,
            matrix=np.column_stack(numbers).astype(np.float32),
            texts=tuple(
                [value or "" for value in frame[name].to_pylist()] for name in features.categorical
            ),
            probabilities=scored["probability"].to_numpy(),
            sources=["full"] * frame.num_rows,
        )
    )
    recorder.close(10)
    documents = [
        f"observations/{life.names.model}/{kind}/2013-06.json" for kind in ("performance", "drift")
    ]
    before = [life.store.read_named(name) for name in documents]
    job = life.definitions.resolve_job_def(life.names.job("score"))
    result = job.execute_in_process(
        instance=life.instance,
        partition_key="2013-06",
        asset_selection=[life.names.asset("performance"), life.names.asset("drift")],
        tags={"aios/as_of": AS_OF.isoformat()},
    )
    assert result.success
    assert [life.store.read_named(name) for name in documents] == before
    metadata = metadata_of(life, "performance", "2013-06")
    [served] = [record.data for record in metadata["served"].records]
    assert served["answers"] == frame.num_rows
    assert served["matched"] == metadata["matched"].value
    assert served["value"] == pytest.approx(metadata["roc_auc"].value, abs=1e-4)
    drift = metadata_of(life, "drift", "2013-06")
    name = f"served_version_{champion.version}"
    assert drift[f"{name}_drift"].value == drift["reason"].value
    assert f"On {frame.num_rows:,} rows no feature differs" in drift[f"{name}_skew"].value


def test_an_asset_never_takes_some_other_runs_upstream(life):
    job = life.definitions.resolve_job_def(life.names.job("retrain"))
    result = job.execute_in_process(
        instance=life.instance,
        asset_selection=[life.names.asset("candidate")],
        raise_on_error=False,
    )
    assert not result.success
    [failure] = [event for event in result.all_events if event.is_step_failure]
    cause = failure.step_failure_data.error.cause
    assert "This run has no 'training_set' upstream" in cause.message


def test_a_window_in_another_unit_is_a_data_fault_and_is_not_trained_on(life, monkeypatch):
    import pyarrow.compute as pc

    from aios_platform.components.model_lifecycle.faults import without_faults

    deliver = small_flights.read_window

    def in_kilometres(window):
        tables = dict(deliver(window))
        flights = tables["flights"]
        place = flights.schema.get_field_index("distance")
        kilometres = pc.multiply(flights["distance"], 1.609344)
        tables["flights"] = flights.set_column(place, "distance", kilometres)
        return tables

    monkeypatch.setattr(small_flights, "read_window", in_kilometres)
    job = life.definitions.resolve_job_def(life.names.job("score"))
    result = job.execute_in_process(
        instance=life.instance, partition_key="2013-06", tags={"aios/as_of": AS_OF.isoformat()}
    )
    assert result.success, "a fault is an alarm, not a failed run"
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["no_data_fault"].passed
    assert "kilometres" in checks["no_data_fault"].metadata["2013-06"].value
    assert without_faults(life.names, life.store, MONTHS) == MONTHS[:5]
    # The same predictions of changed rows: the figures are restated, the first ones kept.
    metadata = metadata_of(life, "performance", "2013-06")
    assert len(metadata["revisions"].records) == 2


def test_a_backup_restored_elsewhere_goes_on_where_it_was(life, database, own_home, tmp_path):
    import os

    from aios_platform.backup.making import back_up
    from aios_platform.backup.restoring import restore
    from aios_platform.database import connect_server
    from aios_platform.database import database as opened
    from aios_platform.ledger.verification import verify
    from tests.homes import forget

    life.run()
    champion = champion_of(database, life.names.model)
    made = back_up(database, life.store.root, tmp_path / "backup")
    left = life.store.root
    elsewhere = own_home.with_name(f"{own_home.name}-restored")
    elsewhere.mkdir()
    predictions = {
        key: life.store.require(life.names.predictions, key).digest
        for key in life.store.keys(life.names.predictions)
    }
    forget()
    os.environ["AIOS_HOME"] = str(elsewhere)
    hidden = f"{left}.away"
    os.rename(left, hidden)  # noqa: PTH104
    try:
        restore(
            connect_server(settings()), settings().artifact_root, tmp_path / "backup", elsewhere
        )
        there = ArtifactStore(settings().artifact_root)
        found = verify(opened())
        found.require()
        assert (found.last, found.hash) == (made.head.seq, made.head.hash)
        assert champion_of(opened(), life.names.model) == champion
        assert there.get(champion.model_digest, ".onnx")
        assert predictions == {
            key: there.require(life.names.predictions, key).digest
            for key in there.keys(life.names.predictions)
        }
        with dg.DagsterInstance.ephemeral() as instance:
            arguments = (life.names, life.definitions, instance, there, opened())
            assert list(run_until_done(*arguments, AS_OF)) == [], "all of it was done before"
            job = life.definitions.resolve_job_def(life.names.job("retrain"))
            assert job.execute_in_process(
                instance=instance, tags={"aios/as_of": AS_OF.isoformat()}
            ).success, "it reads every window that was restored"
    finally:
        os.rename(hidden, left)  # noqa: PTH104
        forget()
        os.environ["AIOS_HOME"] = str(own_home)
