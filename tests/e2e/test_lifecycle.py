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
    from aios_platform.components.model_lifecycle.handoff import recall

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
